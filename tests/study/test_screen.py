"""What a space allows without a time: quality by a law or by one's own runs, parameters, split and memory."""

import json
from pathlib import Path
from typing import Any

import pytest

from moe_codesign.domain.failure import FailureKind
from moe_codesign.domain.shape import MoEShape
from moe_codesign.errors import UserError
from moe_codesign.models import find_model
from moe_codesign.quality import Ablations
from moe_codesign.study.screen import Screen, judge_of
from moe_codesign.study.space import Space, stored_space
from tests.conftest import make_space

QWEN = find_model("Qwen3-30B-A3B")
NARROW = {"moe_intermediate_size": 256, "num_experts": 64, "num_experts_per_tok": 2}


def refused(space: Space, shape: MoEShape) -> tuple[FailureKind, str] | None:
    """The kind and text of what the space has against a shape on its first chip."""
    chip, judge = space.chips[0], judge_of(space, QWEN)
    screen = Screen(space, chip, [w.by_layer(0)[None] for w in space.workloads_on(chip)], judge)
    failure = screen.failures([shape], judge.qualities([shape]))[0]
    return None if failure is None else (failure.kind, failure.text)


@pytest.mark.parametrize(
    ("constraints", "changes", "says"),
    [
        ({}, {}, None),
        ({"min_quality_ratio": 1.0}, {"num_experts": 64}, "quality: 0.7"),
        ({"min_quality_ratio": 0.1}, NARROW, "quality: unknown: it says that one more expert would make a worse model"),
        ({}, NARROW, None),
        ({"total_params_ratio": {"low": 0.9, "high": 1.1}}, {"num_experts": 256}, "parameters: total_params_ratio 2"),
        ({"active_params_ratio": {"high": 1.0}}, {"num_experts_per_tok": 9}, "parameters: active_params_ratio 1.1"),
        ({"total_params": {"high": 29.01e9}}, {}, None),
        ({"total_params": {"high": 28.9e9}}, {}, "parameters: total_params 2.9e+10 is above 2.89e+10"),
        ({"active_params": {"low": 2e9}}, {}, "parameters: active_params 1.825e+09 is below 2e+09"),
        ({}, {"num_experts": 130}, "split: num_experts 130 is not a multiple of ep 4"),
        ({"memory_fraction": 0.1}, {},
         "memory: decode (64 tokens, tp 1, ep 4) takes 14.5 GB of weights + 0.00177 GB of activations = 14.5 GB "
         "a chip, above 10.3 GB (0.1 of 103)"),
    ],
)  # fmt: skip
def test_each_constraint_says_what_it_has_against_a_shape(
    constraints: dict[str, Any], changes: dict[str, Any], says: str | None
) -> None:
    found = refused(make_space(constraints=constraints), QWEN.replaced(**changes))
    assert found is None if says is None else found is not None and f"{found[0]}: {found[1]}".startswith(says)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"constraints": {"total_params": {}}}, "give low, high or both"),
        ({"constraints": {"total_params": {"low": 2.0, "high": 1.0}}}, "low = 2 is above high = 1"),
        ({"law": "abna"}, "did you mean abnar"),
        ({"law": "ablations"}, "give ablations = FILE"),
        ({"equal": "tokens"}, "training_tokens"),
        ({"ablations": "nowhere.csv"}, "nowhere.csv"),
        ({"ablations": [{"loss": 2.0}] * 5}, "ablations"),
        ({"ablations": [{"los": 2.0}] * 6}, "did you mean loss"),
    ],
)
def test_wrong_keys_are_named(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as error:
        make_space(**changes)
    assert says in str(error.value)


def test_a_law_without_a_say_stops_the_space() -> None:
    with pytest.raises(UserError, match="'clark' has no say"):
        judge_of(make_space(law="clark"), QWEN)


@pytest.mark.parametrize("law", ["ablations", "efficiency_leverage"])
def test_own_runs_are_read_from_a_file_and_stored_with_the_study(law: str, tmp_path: Path) -> None:
    """A planted optimum of the width, 704, is what the judge prefers; the study does not need the file again."""
    widths = range(256, 1537, 128)
    rows = "".join(f"{i},{2.0 + 0.001 * ((i - 704) / 128) ** 2}\n" for i in widths)
    (tmp_path / "runs.csv").write_text("moe_intermediate_size,loss\n" + rows)
    space = make_space(law=law, ablations=str(tmp_path / "runs.csv"))
    (tmp_path / "runs.csv").unlink()
    again = stored_space("s", space.identity())
    assert again.identity() == space.identity()
    assert json.loads(space.identity())["ablations"][0]["loss"] == pytest.approx(2.01225)
    judge = judge_of(again, QWEN)
    shapes = [QWEN.replaced(moe_intermediate_size=i) for i in range(256, 1537, 64)]
    best = shapes[int(judge.qualities(shapes).ratio.argmax())]
    assert best.moe_intermediate_size in (640, 704, 768)


def test_activations_count_against_memory_too() -> None:
    """At 2**18 tokens on four ranks: 2 x 2**16 x (2 x 2048 + 8 x (2 x 2048 + 3 x 768)) bytes beside the weights."""
    space = make_space(workload={"num_tokens": 2**18}, constraints={"memory_fraction": 0.2})
    assert refused(make_space(constraints={"memory_fraction": 0.2}), QWEN) is None
    found = refused(space, QWEN)
    assert found is not None
    assert "14.5 GB of weights + 7.25 GB of activations = 21.7 GB a chip, above 20.6 GB" in found[1]


def test_own_runs_are_fitted_once_for_all_chips_and_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    fits: list[int] = []

    class Counted(Ablations):
        def __init__(self, runs: Any, corrects: Any = None) -> None:
            fits.append(len(runs))
            super().__init__(runs, corrects)

    monkeypatch.setattr("moe_codesign.study.screen.Ablations", Counted)
    runs = [{"loss": 2.0 + i / 64, "moe_intermediate_size": 256 + 128 * i} for i in range(7)]
    for _ in range(3):
        assert judge_of(make_space(ablations=runs), QWEN).law.evidence == "runs"
    assert fits == [7]
