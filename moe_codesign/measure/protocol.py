"""The measuring protocol, the same on every device: verify, interleave and time, verify again."""

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from moe_codesign.arrays import F64
from moe_codesign.domain.failure import Failure, FailureKind
from moe_codesign.domain.tile_pair import TilePair
from moe_codesign.execution import Raised
from moe_codesign.measure.job import LayerJob, Measurement, token_orders
from moe_kernels import reference

WARM_S = 0.05
"""Untimed rounds before: a GPU that has waited takes tens of milliseconds to raise its clock, and an H100's first ten
layers were up to 14 % slower, most likely for it."""


class Device(Protocol):
    """What a device must be able to do."""

    name: str
    software: str

    def load(self, job: LayerJob) -> None:
        """Draw weights and activations of unit scale and put them on the device, rounded to the job's type."""

    def expected(self, order: int) -> F64:
        """The layer's output [T, H] in float64, from the operands as the device holds them.

        ``order`` counts those of :func:`moe_codesign.measure.job.token_orders`.
        """

    def run(self, tiles: TilePair, order: int) -> F64:
        """The kernels' output [T, H]; fresh or poisoned memory each time."""

    def timer(self, tiles: TilePair) -> Callable[[], float]:
        """A function that runs the layer once under the job's own rows and returns its time in microseconds."""


@dataclass
class _Candidate:
    position: int
    tiles: TilePair
    error: float
    checks: int
    timer: Callable[[], float]
    samples: list[float]


def measure_layer(job: LayerJob, device: Device) -> list[Measurement | Failure]:
    """Verify and time every candidate of a job; a candidate that fails does not stop the others.

    Returns:
        For each candidate its measurement, or a failure of kind ``MEASUREMENT``.
    """
    device.load(job)
    tolerance = reference.LAYER_TOLERANCE[job.dtype]
    expected = functools.cache(device.expected)
    alive: list[_Candidate] = []
    outcomes: dict[int, Measurement | Failure] = {}
    for position, tiles in enumerate(job.candidates):
        try:
            error, checks = _verify(device, tiles, expected, range(len(token_orders(job))), tolerance)
            if not error <= tolerance:
                outcomes[position] = _failure(f"wrong result: row error {error:.3g}")
                continue
            alive.append(_Candidate(position, tiles, error, checks, device.timer(tiles), []))
        except Exception as problem:
            outcomes[position] = _failure(Raised.of(problem))
    for candidate, raised in _time(job, alive):
        outcomes[candidate.position] = _failure(Raised.of(raised))
    for candidate in alive:
        position = candidate.position
        if position in outcomes:
            continue
        try:
            error, checks = _verify(device, candidate.tiles, expected, (0,), tolerance)
        except Exception as problem:
            outcomes[position] = _failure(Raised.of(problem))
            continue
        if not error <= tolerance:
            outcomes[position] = _failure(f"wrong result after timing: row error {error:.3g}")
            continue
        outcomes[position] = Measurement(
            tiles=candidate.tiles,
            samples_us=tuple(candidate.samples),
            error=max(error, candidate.error),
            checks=checks + candidate.checks,
            device=device.name,
            software=device.software,
        )
    return [outcomes[i] for i in range(len(job.candidates))]


def _verify(
    device: Device, tiles: TilePair, expected: Callable[[int], F64], orders: Sequence[int], tolerance: float
) -> tuple[float, int]:
    worst = 0.0
    for order in orders:
        error = reference.row_error(device.run(tiles, order), expected(order))
        if not error <= tolerance:
            return error, len(orders)
        worst = max(worst, error)
    return worst, len(orders)


def _time(job: LayerJob, candidates: list[_Candidate]) -> list[tuple[_Candidate, Exception]]:
    """Rounds over all candidates in turn: what drifts (clock, temperature, neighbours) hits each alike.

    Returns those that raised, with what they raised.
    """
    failed: dict[int, tuple[_Candidate, Exception]] = {}

    def once(candidate: _Candidate) -> float | None:
        if candidate.position in failed:
            return None
        try:
            return candidate.timer()
        except Exception as problem:
            failed[candidate.position] = (candidate, problem)
            return None

    start = time.perf_counter()
    while True:
        ran = [once(candidate) is not None for candidate in candidates]
        if not any(ran) or time.perf_counter() - start >= WARM_S:
            break
    start = time.perf_counter()
    budget = job.budget_s * len(candidates)
    for round_number in range(job.max_samples):
        if round_number >= job.min_samples and time.perf_counter() - start > budget:
            break
        for candidate in candidates:
            if (sample := once(candidate)) is not None:
                candidate.samples.append(sample)
    return list(failed.values())


def _failure(reason: object) -> Failure:
    return Failure(FailureKind.MEASUREMENT, str(reason))
