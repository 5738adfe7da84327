"""A finite space on one chip, shape by shape: the frontier that no sampler can miss.

The frontier is exact for the cost model: every shape is judged, and every one that meets the constraints is timed under
each workload at every tile of the space.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from moe_codesign.arrays import F64
from moe_codesign.chips import Chip
from moe_codesign.compiler.tile_table import Tables
from moe_codesign.domain.enumeration import Enumeration
from moe_codesign.domain.failure import Failure, FailureKind
from moe_codesign.domain.frontier import non_dominated, slack
from moe_codesign.domain.metrics import Known
from moe_codesign.domain.shape import MoEShape
from moe_codesign.domain.trial import Mode, Trial
from moe_codesign.errors import MachineError
from moe_codesign.execution import Done, Pool
from moe_codesign.study.evaluate import Evaluator
from moe_codesign.study.importances import importances_of_points
from moe_codesign.study.points import point_count, points
from moe_codesign.study.space import Space

AT_ONCE = 1024
"""Shapes that are timed at a time; memory does not grow with the space beyond its objectives' values. A stored batch
has so many, so that another number is another format of the storage."""
_FEWEST_PARTS = 4
"""Parts of a space that is shared out: a process takes longer to start than to judge a part."""
_TIME_LIMIT_S = 3600.0
"""For one part, which takes seconds."""
MOST_KEPT = 1000
"""Feasible shapes that are stored: the frontier, however long, and else those that come nearest to it."""


@dataclass(frozen=True)
class TimedPoints:
    """What came of some points, one after another.

    Args:
        numbers: of those that have a time under every workload, counted through the space.
        values: of the objectives, float64 [numbers, objectives].
        refused: how many were ruled out, by kind.
    """

    numbers: list[int]
    values: F64
    refused: Counter[FailureKind]


def time_all(evaluator: Evaluator, progress: Callable[[int, int], None] | None = None) -> TimedPoints:
    """Judge and time every point of a space on one chip.

    A space of many shapes is shared out to as many processes as compile.

    Args:
        evaluator: of the space on the chip, which is estimated and not measured.
        progress: called with (shapes done, shapes of the space).

    Raises:
        MachineError: a child process ended without an answer.
    """
    total = point_count(evaluator.space)
    found: dict[int, TimedPoints] = {}
    for first, part in timed_batches(evaluator, batches_of(evaluator.space)):
        found[first] = part
        if progress:
            progress(min(len(found) * AT_ONCE, total), total)
    return together([found[first] for first in sorted(found)])


def together(parts: Sequence[TimedPoints]) -> TimedPoints:
    """Parts of a space as one."""
    return TimedPoints(
        [number for part in parts for number in part.numbers],
        np.concatenate([part.values for part in parts]),
        sum((part.refused for part in parts), Counter()),
    )


def counted(evaluator: Evaluator, every: TimedPoints) -> tuple[Enumeration, list[Trial]]:
    """What came of all points of a space, and the shapes to keep as trials, each numbered by its place in the space."""
    kept = [every.numbers[i] for i in _nearest(every.values, evaluator.space.maximised())]
    trials = trials_of(evaluator, kept, "exact")
    counts = Enumeration(
        chip=evaluator.chip.name,
        points=point_count(evaluator.space),
        feasible=len(every.numbers),
        kept=len(trials),
        refused=dict(every.refused),
        importances=importances_of_points(evaluator, every.numbers, every.values),
    )
    return counts, trials


def batches_of(space: Space) -> range:
    """The first point of each batch of a space."""
    return range(0, point_count(space), AT_ONCE)


def timed_batches(evaluator: Evaluator, starts: Iterable[int]) -> Iterator[tuple[int, TimedPoints]]:
    """Each batch by its first point, in the order in which they finish. Few are taken before they are begun."""
    jobs = evaluator.tables.jobs
    if jobs == 1 or len(batches_of(evaluator.space)) < _FEWEST_PARTS:
        for first in starts:
            yield first, _judge(evaluator, first)
        return
    arguments = (evaluator.space, evaluator.chip, evaluator.reference, evaluator.tables.recompile)
    with Pool(jobs, initializer=_start, initargs=arguments) as pool:
        for first, called in pool.map_unordered(_judge_there, starts, time_limit_s=_TIME_LIMIT_S):
            if not isinstance(called, Done):
                raise MachineError(f"{AT_ONCE} shapes of the space were not timed ({called}); try again")
            yield first, called.value


_of_process: Evaluator | None = None


def _start(space: Space, chip: Chip, reference: MoEShape, recompile: bool) -> None:
    global _of_process
    _of_process = Evaluator(space, chip, reference, Tables(recompile=recompile), None)


def _judge_there(first: int) -> TimedPoints:
    assert _of_process is not None
    return _judge(_of_process, first)


def _judge(evaluator: Evaluator, first: int) -> TimedPoints:
    """Judge and time the points from number ``first`` on."""
    return time_points(evaluator, range(first, min(first + AT_ONCE, point_count(evaluator.space))))


def time_points(evaluator: Evaluator, asked: Iterable[int]) -> TimedPoints:
    """Judge points, and time those that meet the constraints, each at its best tiles."""
    refused: Counter[FailureKind] = Counter()
    shapes: list[tuple[int, MoEShape]] = []
    for number, (_, shape) in points(evaluator.space, evaluator.reference, asked):
        if isinstance(shape, Failure):
            refused[shape.kind] += 1
        else:
            shapes.append((number, shape))
    judged = evaluator.judged([shape for _, shape in shapes])
    left = []
    for (number, shape), failure, ratio in zip(shapes, judged.failures, judged.qualities.ratio.tolist(), strict=True):
        if failure is not None:
            refused[failure.kind] += 1
        else:
            left.append((number, shape, ratio))
    timed = evaluator.timed([shape for _, shape, _ in left])
    latencies = [times.latency_us(len(left)) for times in timed]
    numbers, values = [], []
    for index, (number, shape, ratio) in enumerate(left):
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
        numbers.append(number)
        values.append([one.of(known, evaluator.chip) for one in evaluator.space.objectives])
    return TimedPoints(numbers, np.array(values).reshape(-1, len(evaluator.space.objectives)), refused)


def trials_of(evaluator: Evaluator, numbers: Sequence[int], mode: Mode) -> list[Trial]:
    """Points that meet the constraints as trials, each with its pairs at its best tiles."""
    trials = []
    for start in range(0, len(numbers), AT_ONCE):
        some = list(points(evaluator.space, evaluator.reference, numbers[start : start + AT_ONCE]))
        outcomes = evaluator.evaluate_all([shape for _, (_, shape) in some if isinstance(shape, MoEShape)])
        trials += [
            Trial(chip=evaluator.chip.name, mode=mode, number=number, params=dict(params), outcome=outcome)
            for (number, (params, _)), outcome in zip(some, outcomes, strict=True)
        ]
    return trials


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
