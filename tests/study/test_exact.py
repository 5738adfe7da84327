"""A finite space, shape by shape: its frontier is that of a plain loop over ``predict``."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import moe_codesign as mc
from moe_codesign.answers.frontier_rows import report_rows
from moe_codesign.compiler.tile_table import Tables
from moe_codesign.domain.enumeration import Enumeration
from moe_codesign.domain.failure import Failure, FailureKind
from moe_codesign.domain.frontier import non_dominated, slack
from moe_codesign.domain.shape import MoEShape
from moe_codesign.domain.trial import Answered
from moe_codesign.models import find_model
from moe_codesign.quality import Judge, law_named
from moe_codesign.study import exact
from moe_codesign.study.evaluate import Evaluator
from moe_codesign.study.points import is_enumerated, point_count, points
from moe_codesign.study.runner import SearchResult
from tests.conftest import make_space

QWEN = find_model("Qwen3-30B-A3B")
TWO = [
    {"name": "decode", "num_tokens": 32, "ep": 8},
    {"name": "prefill", "num_tokens": 2048, "ep": 8, "routing": "balanced"},
]
BOTH = ["decode.latency_us", "prefill.latency_us", "quality"]


def searched(tmp_path: Path, **changes: Any) -> SearchResult:
    return mc.search(make_space(sampler="auto", **changes), storage=f"sqlite:///{tmp_path / 'results.db'}")


def looped(chip: str, shapes: list[MoEShape]) -> list[tuple[float, float]]:
    """Times under both workloads, a row of ``predict`` at a time."""
    rows = [
        {
            "chip": chip, "hidden_size": s.hidden_size, "moe_intermediate_size": s.moe_intermediate_size,
            "num_experts": s.num_experts, "num_experts_per_tok": s.num_experts_per_tok,
            **{key: w[key] for key in ("num_tokens", "ep", "routing") if key in w},
        }
        for s in shapes
        for w in TWO
    ]  # fmt: skip
    found = [float(one["latency_us"]) for one in mc.predict(rows)]
    return list(zip(found[::2], found[1::2], strict=True))


@pytest.mark.parametrize("chip", ["h100_sxm", "tpu_v6e", "trainium2"])
def test_the_frontier_is_that_of_a_plain_loop(chip: str, tmp_path: Path) -> None:
    axes = {
        "moe_intermediate_size": {"low": 512, "high": 1024, "step": 256},
        "num_experts": [64, 128, 192],
        "num_experts_per_tok": {"low": 4, "high": 12, "step": 4},
    }
    result = searched(tmp_path, chips=[chip], shape=axes, workloads=TWO, objectives=BOTH, tiles={}, modes=["nested"])
    assert result.is_exact
    counts = result.enumerations[chip]
    assert counts.points == 27
    shapes = [
        QWEN.replaced(moe_intermediate_size=i, num_experts=e, num_experts_per_tok=k)
        for i, e, k in itertools.product((512, 768, 1024), (64, 128, 192), (4, 8, 12))
    ]
    quality = Judge(law_named("efficiency_leverage"), QWEN, 36e12).qualities(shapes)
    good = [i for i in range(len(shapes)) if quality.ratio[i] >= 1 and quality.usable[i]]
    assert counts.feasible == len(good) == len(result.trials)
    times = looped(chip, [shapes[i] for i in good])
    values = np.array([(*us, quality.ratio[i]) for us, i in zip(times, good, strict=True)])
    front = {good[row] for row in non_dominated(values, [False, False, True])}
    assert {row.trial for row in report_rows(result) if row.on_frontier} == front
    by_number = {trial.number: trial for trial in result.trials}
    for us, index in zip(times, good, strict=True):
        outcome = by_number[index].outcome
        assert isinstance(outcome, Answered)
        assert [pair.timing.latency_us for pair in outcome.pairs] == pytest.approx(us, abs=1e-4)


def test_what_is_kept_of_many_is_the_frontier_and_what_is_near(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "MOST_KEPT", 20)
    monkeypatch.setattr(exact, "AT_ONCE", 50)
    space = make_space(chips=["trainium2"], constraints={"min_quality_ratio": 0.8})
    evaluator = Evaluator(space, space.chips[0], QWEN, Tables(), None)
    seen: list[tuple[int, int]] = []
    counts, trials = exact.counted(evaluator, exact.time_all(evaluator, lambda done, total: seen.append((done, total))))
    total = point_count(space)
    assert seen[-1] == (total, total) == (576, 576)
    assert counts.kept == len(trials) == max(20, len(trials))
    outcomes = evaluator.evaluate_all(
        [shape for _, (_, shape) in points(space, QWEN, range(total)) if isinstance(shape, MoEShape)]
    )
    feasible = [outcome for outcome in outcomes if isinstance(outcome, Answered)]
    assert counts.feasible == len(feasible)
    values = np.array([[o.value(one.pairs, space.chips[0]) for o in space.objectives] for one in feasible])
    front = non_dominated(values, space.maximised())
    kept = {trial.outcome.pairs[0].shape for trial in trials if isinstance(trial.outcome, Answered)}
    assert {feasible[i].pairs[0].shape for i in front} <= kept
    far = slack(values, values[front], space.maximised())
    worst = max(far[i] for i, one in enumerate(feasible) if one.pairs[0].shape in kept)
    assert worst <= min((far[i] for i, one in enumerate(feasible) if one.pairs[0].shape not in kept), default=np.inf)


def test_many_processes_find_what_one_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    space = make_space(
        chips=["trainium2"],
        shape={
            "num_experts_per_tok": {"low": 1, "high": 128},
            "moe_intermediate_size": {"low": 64, "high": 2048, "step": 64},
        },
    )
    assert point_count(space) == 4096
    found = []
    for jobs in (1, 2):
        evaluator = Evaluator(space, space.chips[0], QWEN, Tables(jobs=jobs), None)
        found.append(exact.counted(evaluator, exact.time_all(evaluator)))
    assert found[0] == found[1]
    assert found[0][0].feasible > 1000


def test_the_points_of_a_space_are_in_a_fixed_order() -> None:
    axes = {"num_experts": [8, 4, 4], "num_experts_per_tok": {"low": 4, "high": 6}, "hidden_size": 512}
    space = make_space(shape=axes)
    found = [point for _, point in points(space, QWEN, range(6))]
    assert [number for number, _ in points(space, QWEN, [4, 1])] == [4, 1]
    assert next(points(space, QWEN, [4]))[1] == found[4]
    assert point_count(space) == len(found) == 6
    assert found[0][0] == {"num_experts": 4, "num_experts_per_tok": 4}
    shapes = [
        shape.kind if isinstance(shape, Failure) else (shape.num_experts, shape.num_experts_per_tok)
        for _, shape in found
    ]
    assert shapes == [(4, 4), FailureKind.SHAPE, FailureKind.SHAPE, (8, 4), (8, 5), (8, 6)]


@pytest.mark.parametrize(
    ("changes", "enumerated"),
    [
        ({}, True),
        ({"budget": {"exact_up_to": 575}}, False),
        ({"budget": {"exact_up_to": 576}}, True),
        ({"sampler": "exact", "budget": {"exact_up_to": 0}}, True),
        ({"sampler": "tpe"}, False),
    ],
)
def test_when_a_space_is_enumerated(changes: dict[str, Any], enumerated: bool) -> None:
    assert is_enumerated(make_space(**{"sampler": "auto"} | changes)) is enumerated


def test_a_number_of_trials_asks_for_a_sampler(tmp_path: Path) -> None:
    space = make_space(sampler="auto")
    result = mc.search(space, trials=5, storage=f"sqlite:///{tmp_path / 'results.db'}")
    assert not result.is_exact
    assert len(result.asked_for) == 5
    both = mc.search(space, storage=f"sqlite:///{tmp_path / 'results.db'}")
    assert both.is_exact
    sampled = [trial for trial in both.trials if trial.mode == "nested"]
    assert sampled == result.asked_for, "what was sampled before is not lost"


def test_a_second_run_enumerates_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = searched(tmp_path)
    monkeypatch.setattr("moe_codesign.study.enumeration.timed_batches", None)
    again = searched(tmp_path)
    assert again.trials == first.trials
    assert again.enumerations == first.enumerations


@pytest.mark.parametrize("change", [{}, {"price": {"trainium2": {"usd_per_hour": 3.0}}}])
def test_an_interrupted_enumeration_goes_on_and_at_other_prices_begins_anew(
    change: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exact, "AT_ONCE", 100)
    objectives = {"objectives": ["decode.usd_per_mtok", "quality"], "price": {"trainium2": {"usd_per_hour": 2.0}}}
    time_points = exact.time_points
    timed: list[int] = []

    def interrupted(evaluator: Evaluator, asked: range) -> exact.TimedPoints:
        if len(timed) == 3:
            raise KeyboardInterrupt
        timed.append(asked.start)
        return time_points(evaluator, asked)

    def counted(evaluator: Evaluator, asked: range) -> exact.TimedPoints:
        timed.append(asked.start)
        return time_points(evaluator, asked)

    monkeypatch.setattr(exact, "time_points", interrupted)
    first = searched(tmp_path, **objectives)
    assert first.interrupted
    assert not first.is_exact
    monkeypatch.setattr(exact, "time_points", counted)
    result = searched(tmp_path, **{**objectives, **change})
    assert result.is_exact
    assert timed == [0, 100, 200, *range(0 if change else 300, 576, 100)]
    monkeypatch.setattr(exact, "time_points", time_points)
    (elsewhere := tmp_path / "elsewhere").mkdir()
    assert result.trials == searched(elsewhere, **{**objectives, **change}).trials


def test_own_runs_with_a_planted_optimum_are_found(tmp_path: Path) -> None:
    """Quality by a table whose best width is 896, and nothing else that counts: the search says so."""
    widths = range(256, 1537, 128)
    rows = "".join(f"{i},{2.0 + 0.01 * ((i - 896) / 640) ** 2}\n" for i in widths)
    (tmp_path / "runs.csv").write_text("moe_intermediate_size,loss\n" + rows)
    result = searched(
        tmp_path,
        law="ablations",
        ablations=str(tmp_path / "runs.csv"),
        shape={"moe_intermediate_size": {"low": 256, "high": 1536, "step": 128}},
        objectives=["quality"],
        constraints={},
    )
    best = max(result.trials, key=lambda trial: trial.pairs[0].quality_ratio)
    assert best.params == {"moe_intermediate_size": 896}


@pytest.mark.parametrize("law", ["efficiency_leverage", "abnar", "zhao"])
def test_a_law_keeps_the_search_from_small_experts(law: str, tmp_path: Path) -> None:
    """Without the constraint the fastest shape is the smallest; with it every pair meets the law."""
    free = searched(tmp_path / "free", law=law, constraints={}, objectives=["decode.latency_us"])
    held = searched(tmp_path / "held", law=law, objectives=["decode.latency_us"])
    fastest = min(free.trials, key=lambda trial: trial.pairs[0].timing.latency_us).pairs[0].shape
    assert (fastest.moe_intermediate_size, fastest.num_experts_per_tok) == (128, 1)
    assert all(pair.quality_ratio >= 1 for trial in held.trials for pair in trial.pairs)
    assert held.enumerations["trainium2"].refused[FailureKind.QUALITY] > 100


def test_counts_that_do_not_add_up_cannot_be_built() -> None:
    with pytest.raises(ValueError, match="add up"):
        Enumeration(chip="c", points=3, feasible=1, kept=1, refused={FailureKind.MEMORY: 1})
    with pytest.raises(ValueError, match="add up"):
        Enumeration(chip="c", points=1, feasible=1, kept=2)
