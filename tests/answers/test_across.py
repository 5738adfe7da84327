"""Lock-in, three layers and one shape for several chips, held against plain loops."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

import moe_codesign as mc
from moe_codesign.answers.lock_in import LockIn, LockInCell
from moe_codesign.answers.priced import product_of_costs
from moe_codesign.answers.three_layers import ThreeLayers
from moe_codesign.cost.ratio import Ratio, ratio
from moe_codesign.domain.failure import Failure, FailureKind
from moe_codesign.domain.shape import MoEShape
from moe_codesign.errors import UserError
from moe_codesign.models import find_model
from moe_codesign.quality import Judge, law_named
from moe_codesign.reports.sheet import sheet_markdown
from moe_codesign.reports.terminal.lock_in import lock_in_sheets
from moe_codesign.study.space import Space
from tests.conftest import make_space

QWEN = find_model("Qwen3-30B-A3B")
AXES = {"moe_intermediate_size": [704, 768, 896], "num_experts": [96, 128, 160], "num_experts_per_tok": [7, 8, 10]}
TWO = [{"name": "decode", "num_tokens": 64, "ep": 4}, {"name": "prefill", "num_tokens": 4096, "ep": 4}]


CERTAIN = Ratio(1.0, 1.0, 1.0, 0.5)


def small(**changes: Any) -> Space:
    """27 shapes, with all tiles that ship compiled."""
    defaults = {"shape": AXES, "workloads": TWO, "chips": ["trainium2", "h100_sxm"], "sampler": "exact", "tiles": {}}
    return make_space(**defaults | changes)


def every_time(chip: str, workload: dict[str, Any]) -> dict[MoEShape, float]:
    """The time of each of the good shapes, a row of ``predict`` at a time."""
    shapes = [
        QWEN.replaced(moe_intermediate_size=i, num_experts=e, num_experts_per_tok=k)
        for i in AXES["moe_intermediate_size"]
        for e in AXES["num_experts"]
        for k in AXES["num_experts_per_tok"]
    ]
    quality = Judge(law_named("efficiency_leverage"), QWEN, 36e12).qualities(shapes)
    good = [shape for i, shape in enumerate(shapes) if quality.ratio[i] >= 1]
    rows = [
        {
            "chip": chip, "hidden_size": s.hidden_size, "moe_intermediate_size": s.moe_intermediate_size,
            "num_experts": s.num_experts, "num_experts_per_tok": s.num_experts_per_tok,
            "num_tokens": workload["num_tokens"], "ep": workload["ep"],
        }
        for s in good
    ]  # fmt: skip
    return dict(zip(good, (float(one["latency_us"]) for one in mc.predict(rows)), strict=True))


def close(value: float) -> Any:
    return pytest.approx(value, rel=1e-4)


@pytest.mark.parametrize("objective", ["decode.latency_us", "prefill.latency_us"])
def test_the_lock_in_matrix_is_that_of_a_plain_loop(objective: str) -> None:
    found = mc.lock_in(small(), objective=objective)
    workload = next(one for one in TWO if objective.startswith(str(one["name"])))
    times = {chip: every_time(chip, workload) for chip in ("trainium2", "h100_sxm")}
    best = {chip: min(of_chip, key=lambda shape: of_chip[shape]) for chip, of_chip in times.items()}
    assert {chip: cost.shape for chip, cost in found.best.items()} == best
    assert found.feasible == {chip: len(of_chip) for chip, of_chip in times.items()}
    assert found.points == 27
    for cell in found.cells:
        assert cell.over_own_best is not None
        of_chip = times[cell.run_on]
        assert cell.over_own_best.value == close(of_chip[best[cell.best_for]] / of_chip[best[cell.run_on]])


def test_a_shape_that_does_not_fit_another_chip_is_a_cell_that_says_so() -> None:
    """The v6e's ranks can share 256 experts alone; where the trainium takes 160, the v6e has no time for its shape."""
    workloads = [
        {"name": "decode", "num_tokens": 64, "ep": 1},
        {"name": "decode", "num_tokens": 64, "ep": 128, "chips": ["tpu_v6e"]},
    ]
    axes = {"num_experts": [160, 256], "moe_intermediate_size": [640, 768]}
    found = mc.lock_in(small(shape=axes, workloads=workloads, chips=["trainium2", "tpu_v6e"], constraints={}))
    cell = found.cell("trainium2", "tpu_v6e")
    assert isinstance(cell.cost, Failure)
    assert cell.cost.kind is FailureKind.SPLIT
    assert cell.over_own_best is None
    text = "\n".join(sheet_markdown(sheet) for sheet in lock_in_sheets(found))
    assert "| trainium2 | 1.00 | no: split |" in text
    assert "trainium2's best on tpu_v6e: split: num_experts 160 is not a multiple of ep 128" in text


def test_a_chip_on_which_nothing_fits_is_an_error_that_counts_why() -> None:
    with pytest.raises(UserError, match=r"no shape of test may be timed on tpu_v6e \(27 (quality|memory)"):
        mc.lock_in(small(chips=["tpu_v6e"], constraints={"memory_fraction": 0.01}))


def test_the_space_is_timed_whole_and_in_parts_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = mc.lock_in(small())
    monkeypatch.setattr("moe_codesign.answers.priced._AT_ONCE", 5)
    seen: list[tuple[str, int, int]] = []
    parts = mc.lock_in(small(), running=lambda *done: seen.append(done))
    assert parts == whole
    assert seen[:2] == [("trainium2", 5, 27), ("trainium2", 10, 27)]
    assert seen[-1] == ("h100_sxm", 27, 27)


AXIS = st.lists(st.sampled_from([512, 640, 704, 768, 896, 1024, 1152]), min_size=1, max_size=4, unique=True)
EXPERTS = st.lists(st.sampled_from([64, 96, 128, 192, 256]), min_size=1, max_size=3, unique=True)


@st.composite
def spaces(draw: st.DrawFn) -> Space:
    shape = {"moe_intermediate_size": draw(AXIS), "num_experts": draw(EXPERTS), "num_experts_per_tok": [6, 8, 12]}
    workload = {"name": "decode", "num_tokens": draw(st.sampled_from([1, 64, 4096])), "ep": 4}
    return small(shape=shape, workloads=[workload], constraints={})


@settings(max_examples=6)
@given(spaces())
def test_what_holds_for_every_lock_in_matrix(space: Space) -> None:
    found: LockIn = mc.lock_in(space)
    for cell in found.cells:
        assert cell.over_own_best is not None
        assert cell.over_own_best.low <= cell.over_own_best.value <= cell.over_own_best.high
        if cell.best_for == cell.run_on:
            assert (cell.over_own_best.value, cell.over_own_best.low, cell.over_own_best.high) == (1.0, 1.0, 1.0)
        else:
            assert cell.over_own_best.value >= 1 - 1e-12


@settings(max_examples=6)
@given(spaces())
def test_what_holds_for_every_three_layers(space: Space) -> None:
    found: ThreeLayers = mc.three_layers(space, from_chip="trainium2", to_chip="h100_sxm")
    assert len(found.orders) == len({tuple(step.layer for step in order) for order in found.orders}) == 6
    for order in found.orders:
        assert math.prod(step.gain.value for step in order) == pytest.approx(found.together.value)
        assert order[0].gain == found.alone[order[0].layer]
    assert math.prod(gain.value for gain in found.alone.values()) == pytest.approx(found.product.value)
    assert found.product.value / found.together.value == pytest.approx(found.product_over_together.value)
    # A chip without a compiler has no tiles to choose.
    assert found.alone["tiles"] == CERTAIN


@settings(max_examples=5)
@given(spaces(), st.sampled_from(["worst", "weighted"]))
def test_what_holds_for_every_robust_shape(space: Space, by: Any) -> None:
    found = mc.robust(space, by=by)
    over = [one.over_own_best.value for one in found.chips]
    assert min(over) >= 1 - 1e-12
    assert found.price == pytest.approx(max(over) if by == "worst" else sum(over) / 2)
    matrix = mc.lock_in(space)
    for row in matrix.best:
        of_row = [cell.over_own_best.value for cell in matrix.cells if cell.best_for == row and cell.over_own_best]
        assert found.price <= (max(of_row) if by == "worst" else sum(of_row) / 2) + 1e-9


def test_the_layers_by_hand() -> None:
    """Trainium's data sheet needs no tiles; the H100's default and best tiles are those of ``predict``."""
    found = mc.three_layers(small(shape={"moe_intermediate_size": [768]}), from_chip="trainium2", to_chip="h100_sxm")
    assert found.found == QWEN.replaced()
    (trainium,) = every_times(["trainium2"])
    (h100,) = every_times(["h100_sxm"])
    assert found.corners["start"].value == close(trainium)
    assert found.corners["chip+tiles"].value == close(h100)
    assert found.corners["chip"].value >= found.corners["chip+tiles"].value
    assert found.together.value == close(trainium / h100)
    assert found.alone["chip"].value == close(trainium / found.corners["chip"].value)
    # A shape that is the reference gains nothing, and that is certain.
    assert found.alone["shape"] == CERTAIN
    assert found.product_over_together.value == close(found.corners["chip+tiles"].value / found.corners["chip"].value)


def every_times(chips: list[str]) -> list[float]:
    rows = [
        {
            "chip": chip, "hidden_size": 2048, "moe_intermediate_size": 768, "num_experts": 128,
            "num_experts_per_tok": 8, "num_tokens": 64, "ep": 4,
        }
        for chip in chips
    ]  # fmt: skip
    return [float(one["latency_us"]) for one in mc.predict(rows)]


def test_weights_of_chips_move_the_one_shape_to_the_heavier_chip() -> None:
    axes = {"moe_intermediate_size": {"low": 512, "high": 1152, "step": 32}, "num_experts": [64, 96, 128]}
    space = small(shape=axes, chips=["trainium2", "tpu_v6e"])
    light = mc.robust(space, by="weighted", weights={"trainium2": 1000}, objective="prefill.latency_us")
    heavy = mc.robust(space, by="weighted", weights={"tpu_v6e": 1000}, objective="prefill.latency_us")
    assert light.chips[0].over_own_best.value == pytest.approx(1, abs=0.001)
    assert heavy.chips[1].over_own_best.value == pytest.approx(1, abs=0.001)
    assert [one.weight for one in heavy.chips] == pytest.approx([1 / 1001, 1000 / 1001])


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"by": "mean"}, "use worst or weighted"),
        ({"weights": {"trainium2": 2.0}}, "no part in the worst case"),
        ({"by": "weighted", "weights": {"b200": 2.0}}, "b200"),
        ({"by": "weighted", "weights": {"trainium2": 0.0}}, "above 0"),
    ],
)
def test_wrong_weights_are_refused(asked: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        mc.robust(small(), **asked)


def test_the_interval_of_a_cost_ratio_is_that_of_its_times() -> None:
    """One ratio everywhere: two shapes on one chip share errors, two chips do not."""
    found = mc.three_layers(small(), from_chip="trainium2", to_chip="h100_sxm")
    costs = found.corners
    for a, b in (("chip+tiles+shape", "chip+tiles"), ("start", "chip"), ("chip+tiles", "chip")):
        expected = ratio(costs[a].pairs[0], costs[b].pairs[0])
        got = costs[a].over(costs[b])
        assert got.value == pytest.approx(expected.value)
        assert got.log_half == pytest.approx(expected.log_half)
    here, there = (costs[one].pairs[0].timing for one in ("chip+tiles+shape", "chip+tiles"))
    independent = math.hypot(*(math.log(one.high_us / one.latency_us) for one in (here, there)))
    assert 0 < costs["chip+tiles+shape"].over(costs["chip+tiles"]).log_half < 0.5 * independent
    product = product_of_costs([(costs["start"], 2), (costs["start"], -2)])
    assert (product.value, product.low, product.high) == (1.0, 1.0, 1.0)


def test_a_mix_of_workloads_errs_as_its_parts_by_their_shares() -> None:
    found = mc.robust(small(), shares={"decode": 3, "prefill": 1})
    for one in found.chips:
        cost, own = one.cost, one.own_best
        assert sum(cost.shares) == pytest.approx(1)
        halves = [ratio(a, b).log_half for a, b in zip(cost.pairs, own.pairs, strict=True)]
        mean = np.mean([cost.shares, own.shares], axis=0)
        assert one.over_own_best.log_half == pytest.approx(float(mean @ halves))


def test_a_ratio_in_json_is_the_ratio_of_every_answer() -> None:
    cell = mc.lock_in(small()).cell("trainium2", "h100_sxm")
    data = TypeAdapter(LockInCell).dump_python(cell, mode="json")
    assert cell.over_own_best is not None
    assert data["over_own_best"] == cell.over_own_best.to_dict()
