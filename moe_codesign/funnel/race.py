"""Measure pairs of tiles side by side, and pick the fastest."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from moe_codesign.chips import Chip
from moe_codesign.cost.bound import layer_bound
from moe_codesign.domain.failure import Failure, FailureKind
from moe_codesign.domain.grouped_gemm import layer_gemms
from moe_codesign.domain.rank import RankWork
from moe_codesign.domain.tile_pair import TilePair
from moe_codesign.domain.timing import Timing
from moe_codesign.measure import LayerJob, Measurement, MeasuringProcess
from moe_kernels.kernel import Kernel


@dataclass(frozen=True)
class Timed:
    """A pair that was verified and timed. Its timing may be implausible: such a pair is never picked."""

    tiles: TilePair
    timing: Timing
    measurement: Measurement


@dataclass(frozen=True)
class Failed:
    """A pair without a time, and why."""

    tiles: TilePair
    failure: Failure


def race(
    process: MeasuringProcess,
    chip: Chip,
    kernel: Kernel,
    work: RankWork,
    pairs: Sequence[TilePair],
    *,
    seed: int,
    seconds: float,
) -> list[Timed | Failed]:
    """What became of each pair, in their order.

    Args:
        process: the device's.
        chip: which chip the device is; its physical bound judges the times.
        kernel: whose tiles these are. Those that it refuses for this problem are not launched.
        work: the rank's share of the layer.
        pairs: timed in turns, so that what drifts hits all alike.
        seed: of the operands.
        seconds: of timing for each pair.
    """
    refused = {pair: failure for pair in pairs if (failure := _refusal(kernel, chip, work, pair))}
    launched = [pair for pair in pairs if pair not in refused]
    outcomes = iter(process.measure(LayerJob.of(work, launched, seed=seed, budget_s=seconds)) if launched else ())
    bound = layer_bound(chip, work)
    raced: list[Timed | Failed] = []
    for pair in pairs:
        outcome = refused.get(pair) or next(outcomes)
        if isinstance(outcome, Measurement):
            raced.append(Timed(pair, outcome.timing(bound.us, bound.kind), outcome))
        else:
            raced.append(Failed(pair, outcome))
    return raced


def pick(raced: Iterable[Timed | Failed]) -> Timed | list[Failed]:
    """The fastest pair that is not implausible; if every pair failed, why each of them did."""
    timed: list[Timed] = []
    failed: list[Failed] = []
    for one in raced:
        if isinstance(one, Failed):
            failed.append(one)
        elif one.timing.implausible:
            failed.append(Failed(one.tiles, implausible(one.timing)))
        else:
            timed.append(one)
    return min(timed, key=lambda one: one.timing.latency_us) if timed else failed


def implausible(timing: Timing) -> Failure:
    """Why a time below the physical bound counts for nothing."""
    text = f"implausible: {timing.latency_us:.1f} us is below the physical bound of {timing.bound_us:.1f} us"
    return Failure(FailureKind.MEASUREMENT, text)


def reason_of(failed: Sequence[Failed]) -> Failure:
    """All failures as one: of their common kind, or of the last step that any of them reached.

    Raises:
        ValueError: ``failed`` is empty.
    """
    if not failed:
        raise ValueError("no pair failed, so that there is no reason")
    kinds = {one.failure.kind for one in failed}
    kind = kinds.pop() if len(kinds) == 1 else FailureKind.MEASUREMENT
    text = "; ".join(f"{one.tiles.label()}: {one.failure.text}" for one in failed)
    return Failure(kind, text[:500])


def _refusal(kernel: Kernel, chip: Chip, work: RankWork, pair: TilePair) -> Failure | None:
    for gemm, tile in zip(layer_gemms(work), pair, strict=True):
        if reason := kernel.refuses(gemm.problem, tile, chip.target):
            return Failure(FailureKind.KERNEL, reason)
    return None
