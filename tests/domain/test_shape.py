import json
from typing import Any

import pytest
from pydantic import TypeAdapter

from moe_codesign.domain.shape import MoEShape
from moe_codesign.errors import UserError
from moe_codesign.models import find_model

QWEN: dict[str, Any] = {"hidden_size": 2048, "moe_intermediate_size": 768, "num_experts": 128, "num_experts_per_tok": 8}


def test_counts_of_a_published_model() -> None:
    shape = find_model("Qwen3-30B-A3B")
    # 48 layers x 128 experts x 3 x 2048 x 768: the 29 of 30.5 billion parameters that are experts.
    assert shape.num_layers * shape.layer_params == pytest.approx(29.0e9, rel=0.01)
    assert shape.active_flops_per_token == 2 * 8 * 3 * 2048 * 768
    assert shape.weight_bytes("bfloat16") == 2 * shape.num_layers * shape.layer_params


def test_an_ungated_layer_has_two_projections() -> None:
    assert MoEShape(**QWEN, gated=False).expert_params == 2 * 2048 * 768


@pytest.mark.parametrize("field", ["hidden_size", "moe_intermediate_size", "num_experts", "num_experts_per_tok"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "8"])
def test_bad_sizes_are_named(field: str, value: object) -> None:
    with pytest.raises(UserError, match=field):
        MoEShape(**{**QWEN, field: value})


def test_top_k_over_the_experts_is_refused() -> None:
    with pytest.raises(UserError, match=r"num_experts_per_tok.*9.*num_experts = 8"):
        MoEShape(hidden_size=64, moe_intermediate_size=64, num_experts=8, num_experts_per_tok=9)


def test_latent_experts_work_at_their_width_and_shared_ones_at_the_full() -> None:
    # Nemotron-3-Super: 512 experts of 1024 x 2688, two shared ones of 4096 x 2688, no gate.
    shape = find_model("Nemotron-3-Super")
    assert (shape.expert_hidden_size, shape.projections) == (1024, 2)
    assert shape.expert_params == 2 * 1024 * 2688
    assert shape.shared_params == 2 * 2 * 4096 * 2688
    assert shape.layer_params == 512 * 2 * 1024 * 2688 + 2 * 2 * 4096 * 2688 + 2 * 4096 * 1024 + 512 * 4096
    assert shape.active_flops_per_token == 2 * (22 * 2 * 1024 * 2688 + 2 * 2 * 4096 * 2688 + 2 * 4096 * 1024)
    # The model has 120 billion parameters, of which 40 such layers hold nearly all.
    assert shape.num_layers * shape.layer_params == pytest.approx(120e9, rel=0.05)


@pytest.mark.parametrize("name", ["DeepSeek-V3", "Kimi-K2", "GLM-4.5", "Nemotron-3-Nano"])
def test_layers_of_experts_fit_in_the_model(name: str) -> None:
    billions = {"DeepSeek-V3": 671, "Kimi-K2": 1026, "GLM-4.5": 355, "Nemotron-3-Nano": 31.6}[name]
    shape = find_model(name)
    assert 0.9 < shape.num_layers * shape.layer_params / (billions * 1e9) < 1


def test_zero_experts_cost_nothing() -> None:
    shape = find_model("LongCat-Flash")
    assert shape.choices_of_experts == pytest.approx(8)
    assert shape.active_flops_per_token == pytest.approx(2 * 8 * 3 * 6144 * 2048)


@pytest.mark.parametrize("field", ["moe_latent_size", "zero_expert_num"])
@pytest.mark.parametrize("value", [-1, 1.5, True, "8", 10**12])
def test_bad_latent_widths_and_zero_experts_are_named(field: str, value: object) -> None:
    with pytest.raises(UserError, match=field):
        MoEShape(**{**QWEN, field: value})


def test_a_shape_that_was_stored_before_it_could_be_latent_is_one_without_latent_width() -> None:
    adapter = TypeAdapter(MoEShape)
    stored = json.loads(adapter.dump_json(MoEShape(**QWEN)))
    assert stored.pop("moe_latent_size") is None
    assert stored.pop("zero_expert_num") == 0
    assert adapter.validate_json(json.dumps(stored), strict=True) == MoEShape(**QWEN)
