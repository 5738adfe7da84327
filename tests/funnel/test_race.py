"""The fastest pair of tiles that is right and possible is picked; every other one has its reason."""

import dataclasses

import pytest

from moe_codesign.chips import load_chip
from moe_codesign.compiler.kernels import kernel_for
from moe_codesign.cost.bound import layer_bound
from moe_codesign.domain.failure import Failure, FailureKind
from moe_codesign.domain.rank import rank_work
from moe_codesign.domain.tile_pair import TilePair
from moe_codesign.domain.workload import Workload
from moe_codesign.funnel import Failed, Timed, implausible, pick, race, reason_of
from moe_codesign.measure import LayerJob, Measurement, MeasuringProcess
from moe_codesign.models import find_model
from moe_kernels.tile import BlockedTile

CHIP = load_chip("cpu")
KERNEL = kernel_for(CHIP)
WORK = rank_work(find_model("Qwen3-30B-A3B"), Workload(name="decode", num_tokens=8, ep=16))
BOUND_US = layer_bound(CHIP, WORK).us


def pair(tile_m: int) -> TilePair:
    tile = BlockedTile(tile_m=tile_m, tile_k=128, tile_n=128)
    return TilePair(tile, tile)


SLOW, FAST, WRONG, TOO_FAST, REFUSED = (pair(m) for m in (16, 32, 48, 64, 80))
TIMES = {SLOW: 9.0, FAST: 3.0, TOO_FAST: 0.5}
KERNEL = dataclasses.replace(
    KERNEL, refuses=lambda problem, tile, target: "too tall" if tile == REFUSED.down and problem.op == "down" else None
)


class Process(MeasuringProcess):
    """Answers by heart."""

    def __init__(self) -> None:
        self.jobs: list[LayerJob] = []

    def measure(self, job: LayerJob) -> list[Measurement | Failure]:
        self.jobs.append(job)
        return [self._one(tiles) for tiles in job.candidates]

    def _one(self, tiles: TilePair) -> Measurement | Failure:
        if tiles == WRONG:
            return Failure(FailureKind.MEASUREMENT, "wrong result")
        samples = tuple(TIMES[tiles] * BOUND_US * factor for factor in (0.99, 1.0, 1.01))
        return Measurement(tiles=tiles, samples_us=samples, error=0.001, checks=4, device="it", software="1")


def run(process: Process, *pairs: TilePair) -> list[Timed | Failed]:
    return race(process, CHIP, KERNEL, WORK, pairs, seed=3, seconds=0.25)


def test_each_pair_has_its_outcome_in_order_and_refused_ones_are_not_launched() -> None:
    process = Process()
    pairs = (SLOW, REFUSED, WRONG, FAST, TOO_FAST, FAST)
    raced = run(process, *pairs)
    assert [one.tiles for one in raced] == list(pairs)
    assert [type(one) for one in raced] == [Timed, Failed, Failed, Timed, Timed, Timed]
    (job,) = process.jobs
    assert job.candidates == (SLOW, WRONG, FAST, TOO_FAST, FAST)
    assert (job.seed, job.budget_s, job.rows) == (3, 0.25, tuple(WORK.rows))
    assert raced[1] == Failed(REFUSED, Failure(FailureKind.KERNEL, "too tall"))


def test_nothing_is_launched_where_all_are_refused() -> None:
    process = Process()
    failed = pick(run(process, REFUSED))
    assert process.jobs == []
    assert isinstance(failed, list)
    assert reason_of(failed).kind == FailureKind.KERNEL


def test_the_fastest_possible_pair_wins() -> None:
    best = pick(run(Process(), SLOW, TOO_FAST, WRONG, FAST, REFUSED))
    assert isinstance(best, Timed)
    assert best.tiles == FAST
    assert best.timing.latency_us == pytest.approx(3 * BOUND_US)
    assert best.timing.grade == "measured"
    assert best.measurement.checks == 4


def test_without_a_winner_every_pair_says_why() -> None:
    failed = pick(run(Process(), TOO_FAST, WRONG, REFUSED))
    assert isinstance(failed, list)
    assert [one.tiles for one in failed] == [TOO_FAST, WRONG, REFUSED]
    together = reason_of(failed)
    assert together.kind == FailureKind.MEASUREMENT
    for words in ("implausible", "below the physical bound", "wrong result", "too tall", WRONG.label()):
        assert words in together.text


def test_an_implausible_time_is_kept_with_its_reason() -> None:
    (one,) = run(Process(), TOO_FAST)
    assert isinstance(one, Timed)
    assert one.timing.implausible
    assert implausible(one.timing).kind == FailureKind.MEASUREMENT


def test_no_failure_is_no_reason() -> None:
    with pytest.raises(ValueError, match="no pair failed"):
        reason_of([])
