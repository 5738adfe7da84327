"""What a row asks: one of four kinds of question, whatever else it holds."""

from typing import Any

import pytest

from moe_codesign.chips import load_chip
from moe_codesign.compiler.tile_table import Tables
from moe_codesign.cost.model_for import kind_of, model_for
from moe_codesign.cost.ours.model import OurKernels
from moe_codesign.cost.ragged_dot.model import RaggedDotKernels
from moe_codesign.cost.stacks.layers import StackLayers
from moe_codesign.domain.question import OurGemm, OurLayer, RaggedDot, StackLayer
from moe_codesign.domain.routing import DEFAULT_ROUTING
from moe_codesign.domain.shape import MoEShape
from moe_codesign.domain.workload import Workload
from moe_codesign.errors import UserError
from moe_codesign.formats.problem_rows import layer_of, measured_layer
from moe_codesign.formats.questions import question_of

CHIP = load_chip("h100_sxm")
LAYER: dict[str, Any] = {
    "hidden_size": 2048, "moe_intermediate_size": 768, "num_experts": 128, "num_experts_per_tok": 8, "num_tokens": 64,
}  # fmt: skip
GEMM: dict[str, Any] = {"op": "grouped_gemm", "m": 64, "k": 2048, "n": 768, "groups": 8}
TILE = {"block_m": 64, "block_n": 64, "block_k": 64, "num_warps": 4, "num_stages": 3}


@pytest.mark.parametrize(
    ("row", "kind", "model"),
    [
        (LAYER, OurLayer, OurKernels),
        (LAYER | {"tile": TILE}, OurLayer, OurKernels),
        (LAYER | {"stack": "ours"}, OurLayer, OurKernels),
        (LAYER | {"stack": "vllm"}, StackLayer, StackLayers),
        (LAYER | {"stack": "sglang", "dtype": "fp8_block"}, StackLayer, StackLayers),
        (GEMM, OurGemm, OurKernels),
        (GEMM | {"tile": TILE}, OurGemm, OurKernels),
        (GEMM | {"tile": TILE, "kernel": "triton.grouped_matmul"}, OurGemm, OurKernels),
        (GEMM | {"tile": TILE, "stack": "ragged_dot"}, RaggedDot, RaggedDotKernels),
    ],
)
def test_a_row_asks_one_kind_of_question_which_one_model_answers(row: dict[str, Any], kind: type, model: type) -> None:
    question = question_of(row, CHIP)
    assert type(question) is kind
    assert type(model_for(question, CHIP, Tables())) is model


def test_questions_of_one_kind_are_answered_together() -> None:
    asked = (LAYER, GEMM | {"tile": TILE}, LAYER | {"stack": "vllm"}, LAYER | {"stack": "vllm", "num_tokens": 5})
    ours, gemm, one, other = (kind_of(question_of(row, CHIP)) for row in asked)
    assert ours == gemm != one == other
    assert kind_of(question_of(LAYER | {"stack": "vllm", "dtype": "fp8"}, CHIP)) != one


def test_columns_that_are_left_out_have_one_default_each() -> None:
    question = question_of(LAYER, CHIP)
    assert isinstance(question, OurLayer)
    assert question.workload.routing == DEFAULT_ROUTING
    assert (question.workload.dtype, question.workload.tp, question.tiles) == ("bfloat16", 1, None)


def test_a_question_that_means_nothing_cannot_be_built() -> None:
    shape = MoEShape(hidden_size=64, moe_intermediate_size=64, num_experts=8, num_experts_per_tok=2, n_shared_experts=1)
    with pytest.raises(UserError, match="n_shared_experts"):
        StackLayer(stack="vllm", shape=shape, workload=Workload(name="w", num_tokens=1))
    with pytest.raises(UserError, match="stack: got 'tgi'; use ours, vllm, sglang, ragged_dot"):
        question_of(LAYER | {"stack": "tgi"}, CHIP)


def test_only_what_leaves_the_tile_to_us_is_compiled_together() -> None:
    tables = Tables()
    rows = (LAYER, LAYER | {"gated": False}, GEMM, GEMM | {"tile": TILE}, LAYER | {"dtype": "fp8"})
    questions = [question_of(row, CHIP) for row in rows]
    needs = list(model_for(questions[0], CHIP, tables).needs(questions))
    assert [(chip.name, space, ops, dtype) for chip, space, ops, dtype in needs] == [
        ("h100_sxm", None, ["down", "gate_up", "up"], "bfloat16"),
        ("h100_sxm", None, ["down", "gate_up"], "fp8"),
    ]
    other = question_of(LAYER | {"stack": "vllm"}, CHIP)
    assert list(model_for(other, CHIP, tables).needs([other])) == []


@pytest.mark.parametrize(
    ("given", "asked", "measured"), [({}, None, 0), ({"seed": ""}, None, 0), ({"seed": "3"}, 3, 3)]
)
def test_a_row_is_asked_in_the_mean_and_was_measured_under_one_draw(
    given: dict[str, Any], asked: int | None, measured: int
) -> None:
    assert layer_of({**LAYER, **given}, "bfloat16")[1].seed == asked
    assert measured_layer({**LAYER, **given}, "bfloat16")[1].seed == measured


def test_rows_of_groups_are_those_of_a_typical_draw_unless_a_seed_is_given() -> None:
    def rows(**given: Any) -> list[int]:
        question = question_of({**GEMM, "m": 4096, **given}, CHIP)
        assert isinstance(question, OurGemm)
        return [int(count) for count in question.gemm.rows]

    assert sum(rows()) == sum(rows(seed=1)) == 4096
    assert rows() == sorted(rows())
    assert rows(seed=1) != rows(seed=2)
