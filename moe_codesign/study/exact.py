"""A finite space on one chip, shape by shape: the frontier that no sampler can miss.

The frontier is exact for the cost model: every shape is judged, and every one that meets the constraints is timed under
each workload at every tile of the space.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from moe_codesign.arrays import F64
from moe_codesign.domain.enumeration import Enumeration
from moe_codesign.domain.failure import Failure, FailureKind
from moe_codesign.domain.frontier import non_dominated, slack
from moe_codesign.domain.metrics import Known
from moe_codesign.domain.shape import MoEShape
from moe_codesign.domain.trial import Trial
from moe_codesign.study.evaluate import Evaluator
from moe_codesign.study.points import Point, point_count, points

_T = TypeVar("_T")
_AT_ONCE = 1024
"""Shapes that are timed at a time; memory does not grow with the space beyond its objectives' values."""
MOST_KEPT = 1000
"""Feasible shapes that are stored: the frontier, however long, and else those that come nearest to it."""


@dataclass(frozen=True)
class _Feasible:
    """Shapes that have a time under every workload, by their numbers in the space."""

    numbers: list[int]
    points: list[Point]
    values: list[F64]


def enumerate_space(
    evaluator: Evaluator, progress: Callable[[int, int], None] | None = None
) -> tuple[Enumeration, list[Trial]]:
    """Judge and time every shape of a space on one chip.

    Args:
        evaluator: of the space on the chip, which is estimated and not measured.
        progress: called with (shapes done, shapes of the space).

    Returns:
        What came of all of them, and the shapes to keep as trials, each numbered by its place in the space.
    """
    space, total = evaluator.space, point_count(evaluator.space)
    refused: Counter[FailureKind] = Counter()
    feasible = _Feasible([], [], [])
    done = 0
    for part in _parts(points(space, evaluator.reference)):
        _add(evaluator, done, part, feasible, refused)
        done += len(part)
        if progress:
            progress(done, total)
    kept = _nearest(np.array(feasible.values).reshape(-1, len(space.objectives)), space.maximised())
    trials = [
        trial
        for part in _parts(iter(kept))
        for trial in _trials(evaluator, [feasible.numbers[i] for i in part], [feasible.points[i] for i in part])
    ]
    counts = Enumeration(
        chip=evaluator.chip.name,
        points=total,
        feasible=len(feasible.numbers),
        kept=len(trials),
        refused=dict(refused),
    )
    return counts, trials


def _parts(of: Iterator[_T]) -> Iterator[list[_T]]:
    while part := list(itertools.islice(of, _AT_ONCE)):
        yield part


def _add(
    evaluator: Evaluator, first: int, part: Sequence[Point], feasible: _Feasible, refused: Counter[FailureKind]
) -> None:
    """Judge and time the points from number ``first`` on."""
    shapes: list[tuple[int, MoEShape]] = []
    for place, (_, shape) in enumerate(part):
        if isinstance(shape, Failure):
            refused[shape.kind] += 1
        else:
            shapes.append((place, shape))
    judged = evaluator.judged([shape for _, shape in shapes])
    left = []
    for (place, shape), failure, ratio in zip(shapes, judged.failures, judged.qualities.ratio.tolist(), strict=True):
        if failure is not None:
            refused[failure.kind] += 1
        else:
            left.append((place, shape, ratio))
    timed = evaluator.timed([shape for _, shape, _ in left])
    latencies = [times.latency_us(len(left)) for times in timed]
    for index, (place, shape, ratio) in enumerate(left):
        of_workloads = [float(found[index]) for found in latencies]
        if (without := next((i for i, us in enumerate(of_workloads) if np.isnan(us)), None)) is not None:
            _, answer = timed[without].answer(index)
            assert isinstance(answer, Failure)
            refused[answer.kind] += 1
            continue
        known = [
            Known(us, shape.num_layers, ratio, next(iter(times.layers.values())))
            for us, times in zip(of_workloads, timed, strict=True)
        ]
        feasible.numbers.append(first + place)
        feasible.points.append(part[place])
        feasible.values.append(np.array([one.of(known, evaluator.chip) for one in evaluator.space.objectives]))


def _trials(evaluator: Evaluator, numbers: Sequence[int], some: Sequence[Point]) -> list[Trial]:
    outcomes = evaluator.evaluate_all([shape for _, shape in some if isinstance(shape, MoEShape)])
    return [
        Trial(chip=evaluator.chip.name, mode="exact", number=number, params=dict(params), outcome=outcome)
        for number, (params, _), outcome in zip(numbers, some, outcomes, strict=True)
    ]


def _nearest(values: F64, maximise: Sequence[bool]) -> list[int]:
    """The rows on the frontier, and of the others those that come nearest, up to MOST_KEPT in all; ascending."""
    if not len(values):
        return []
    front = non_dominated(values, maximise)
    if len(front) >= MOST_KEPT:
        return front
    order = np.argsort(slack(values, values[front], maximise), kind="stable")
    rest = order[~np.isin(order, front)]
    return sorted([*front, *rest[: MOST_KEPT - len(front)].tolist()])
