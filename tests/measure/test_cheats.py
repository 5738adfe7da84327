"""No kernel that leaves out work gets a time, from bench or in a search; see tests/measure/cheats.py."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import moe_codesign as mc
from moe_codesign.answers.bench import BenchRow
from moe_codesign.domain.pair import Pair
from moe_codesign.domain.shape import MoEShape
from moe_codesign.domain.tile_pair import TilePair
from moe_codesign.domain.trial import Answered, Refused
from moe_codesign.measure import jax_device
from moe_codesign.measure.draws import after_timing, before_timing, for_timing
from moe_codesign.measure.job import LayerJob
from moe_codesign.study.evaluate import Evaluator
from tests.conftest import make_space
from tests.measure.cheats import FORGETS, SLEEP_S, SLOW, WRONG, planted

SHAPE = MoEShape(hidden_size=256, moe_intermediate_size=128, num_experts=8, num_experts_per_tok=2)
TOKENS = 16


def bench() -> BenchRow:
    (row,) = mc.bench(SHAPE, tokens=[TOKENS], ep=1, seconds=0.01)
    return row


def search(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Answered | Refused:
    """The one trial of a search over the same layer."""
    sizes = {key: [getattr(SHAPE, key)] for key in ("moe_intermediate_size", "num_experts", "num_experts_per_tok")}
    space = make_space(
        chips=["cpu"],
        shape={"hidden_size": SHAPE.hidden_size, **sizes},
        workload={"num_tokens": TOKENS, "ep": 1},
        constraints={},
        budget={"measure_seconds": 0.01, "measure_top": 1},
    )
    # The reference model is measured as the trials are, and takes longer.
    none: tuple[Pair, ...] = ()
    monkeypatch.setattr(Evaluator, "reference_pairs", lambda self, wanted: (none, False))
    result = mc.search(space, trials=1, storage=f"sqlite:///{folder / 'results.db'}")
    (trial,) = result.trials
    return trial.outcome


def test_the_honest_kernel_is_timed_by_bench_and_in_a_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with planted("honest", monkeypatch):
        row = bench()
        found = search(tmp_path, monkeypatch)
    assert row.timing is not None, row.reason
    assert row.reason is None
    assert row.checks >= 4 + 2 + 3
    assert isinstance(found, Answered), found


@pytest.mark.parametrize("cheat", WRONG)
def test_bench_refuses(cheat: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with planted(cheat, monkeypatch):
        row = bench()
    assert row.timing is None
    assert row.reason is not None
    assert "wrong" in row.reason.text, row.reason


@pytest.mark.parametrize("cheat", WRONG)
def test_a_search_refuses(cheat: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with planted(cheat, monkeypatch):
        found = search(tmp_path, monkeypatch)
    assert isinstance(found, Refused), found
    assert "wrong" in found.failure.text


@pytest.mark.parametrize("cheat", SLOW)
def test_the_clock_runs_until_the_work_is_done(cheat: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with planted(cheat, monkeypatch):
        row = bench()
        found = search(tmp_path, monkeypatch)
    assert row.timing is not None, row.reason
    assert row.timing.low_us >= SLEEP_S * 1e6
    assert isinstance(found, Answered), found
    assert found.pairs[0].timing.low_us >= SLEEP_S * 1e6


@pytest.mark.parametrize("cheat", FORGETS)
def test_what_is_remembered_saves_no_time(cheat: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with planted(cheat, monkeypatch):
        row = bench()
    assert row.timing is None or row.timing.low_us >= SLEEP_S * 1e6


def test_a_time_below_the_physical_bound_is_never_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Hasty(jax_device.JaxDevice):
        def launch(self, tiles: TilePair) -> float:
            return super().launch(tiles) * 1e-9

    with planted("honest", monkeypatch):
        monkeypatch.setattr("tests.measure.cheats.JaxDevice", Hasty)
        row = bench()
        found = search(tmp_path, monkeypatch)
    assert row.reason is not None
    assert "below the physical bound" in row.reason.text
    assert isinstance(found, Refused), found
    assert "below the physical bound" in found.failure.text


@pytest.mark.parametrize(("experts", "pairs"), [(8, 32), (128, 4), (5, 3), (1, 7), (64, 1), (3, 0)])
def test_every_expert_is_checked_under_four_routings_and_three_seeds(experts: int, pairs: int) -> None:
    rows = np.random.default_rng(0).multinomial(pairs, np.full(experts, 1 / experts))
    job = LayerJob(rows=tuple(rows.tolist()), tokens=16, hidden_size=8, intermediate_size=8, gated=True, candidates=())
    before, after = before_timing(job), after_timing(job, 1)
    draws = [*before, next(for_timing(job, 1)), *after]
    assert all(draw.pairs == pairs for draw in draws)
    if pairs:
        assert np.sum([draw.rows for draw in before], axis=0).min() > 0
        assert len({draw.seed for draw in draws}) == len(draws) >= 3
        assert len(after) >= 3
    if pairs and experts > 1:
        assert len({draw.rows for draw in draws}) >= 4
    token = draws[0].pair_token()
    for start, size in zip(np.cumsum(rows) - rows, rows, strict=True):
        assert len(set(token[start : start + size])) == size, "no expert has a token twice"


def test_draws_of_another_secret_are_others() -> None:
    job = LayerJob(rows=(3, 4), tokens=8, hidden_size=8, intermediate_size=8, gated=True, candidates=())
    first, second = (next(for_timing(job, secret)) for secret in (1, 2))
    assert first.rows == second.rows == job.rows
    assert first.generator().random() != second.generator().random()
    assert dataclasses.replace(first, seed=second.seed) == second
