"""The neighbours of a sampled frontier: on a small space they lead to the exact one."""

from pathlib import Path
from typing import Any, NoReturn

import pytest

import moe_codesign as mc
from moe_codesign.answers.frontier_rows import report_rows
from moe_codesign.domain.polish import Polish
from moe_codesign.study.runner import SearchResult
from tests.conftest import make_space


def searched(folder: Path, study: str, trials: int = 20, **changes: Any) -> SearchResult:
    space = make_space(**{"budget": {"polish": 2000}} | changes)
    return mc.search(space, trials=trials, storage=f"sqlite:///{folder / 's.db'}", study=study)


def frontier(result: SearchResult) -> set[str]:
    return {row.pair.shape.label() for row in report_rows(result) if row.on_frontier}


def test_a_polish_leads_to_the_exact_frontier(tmp_path: Path) -> None:
    exact = searched(tmp_path, "exact", sampler="exact")
    plain = searched(tmp_path, "plain", budget={"polish": 0})
    polished = searched(tmp_path, "polished")
    assert frontier(plain) != frontier(exact)
    assert frontier(polished) == frontier(exact)
    assert [trial for trial in polished.trials if trial.mode != "polish"] == plain.trials, "the sampler is as it was"
    done = polished.polishes["trainium2"]
    assert done.settled
    assert (done.trials, done.kept) == (20, len(polished.trials) - 20)
    assert str(done) == (
        f"{done.shapes} neighbours of the frontier were judged until none was left that could move it: "
        f"{done.kept} more lie on it"
    )
    assert plain.polishes == {}


def test_a_polish_is_done_once_and_again_when_trials_are_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = searched(tmp_path, "a")
    with monkeypatch.context() as patched:
        patched.setattr("moe_codesign.study.runner.polish", None)
        again = searched(tmp_path, "a")
    assert (again.trials, again.polishes) == (first.trials, first.polishes)
    more = searched(tmp_path, "a", trials=30)
    assert more.polishes["trainium2"].trials == 30
    assert frontier(more) == frontier(first), "nothing on the frontier is lost"


def test_a_polish_ends_at_its_limit(tmp_path: Path) -> None:
    done = searched(tmp_path, "a", budget={"polish": 7}).polishes["trainium2"]
    assert (done.shapes, done.settled) == (7, False)
    assert "up to the limit of budget.polish" in str(done)


def test_a_joint_search_is_polished_at_the_best_tiles(tmp_path: Path) -> None:
    axes = {"moe_intermediate_size": [768, 1024], "num_experts_per_tok": [8, 10]}
    result = searched(tmp_path, "a", chips=["h100_sxm"], modes=["joint"], trials=3, shape=axes, constraints={})
    exact = searched(tmp_path, "b", chips=["h100_sxm"], sampler="exact", shape=axes, constraints={})
    assert frontier(result) == frontier(exact)
    best = {row.pair.shape: row.pair.timing.latency_us for row in report_rows(exact)}
    assert all(row.pair.timing.latency_us == best[row.pair.shape] for row in report_rows(result) if row.on_frontier)


def test_a_polish_that_fails_leaves_the_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def overflow(*_: Any) -> NoReturn:
        raise OverflowError("too much")

    monkeypatch.setattr("moe_codesign.study.polish.time_points", overflow)
    result = searched(tmp_path, "a", trials=2)
    assert result.notes == ("trainium2: the neighbours of the frontier were not timed (OverflowError: too much)",)
    assert len(result.trials) == 2


def test_counts_below_0_cannot_be_built() -> None:
    with pytest.raises(ValueError, match="below 0"):
        Polish(chip="c", trials=-1, shapes=0, rounds=0, settled=True, kept=0)
