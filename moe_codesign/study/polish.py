"""The end of a sampled search where times are estimated: the neighbours of the frontier, until it stops moving.

A sampler comes near the frontier and seldom onto it. All neighbours together are timed as fast as an enumeration times
them, so that this costs seconds.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from moe_codesign.domain.frontier import non_dominated
from moe_codesign.domain.polish import Polish
from moe_codesign.domain.trial import Answered, Trial
from moe_codesign.study.evaluate import Evaluator
from moe_codesign.study.exact import MOST_KEPT, TimedPoints, time_points, trials_of
from moe_codesign.study.points import neighbours, number_of
from moe_codesign.study.space import Space

_AT_ONCE = 1024
"""Shapes of which the frontier is found anew: the next ones are the neighbours of a better one."""


@dataclass
class Known:
    """Points whose objectives are known.

    Args:
        numbers: of the points that have a time under every workload, counted through the space; one that was tried with
            several tiles is there several times.
        values: of the objectives, by the same order.
        timed: every point that was judged, and timed at its best tiles where it met the constraints.
    """

    numbers: list[int]
    values: list[list[float]]
    timed: set[int]

    def front(self, space: Space) -> list[int]:
        """The places of those that no other beats in every objective."""
        return non_dominated(np.array(self.values), space.maximised()) if self.values else []


def polish(
    evaluator: Evaluator, trials: Sequence[Trial], progress: Callable[[int, int], None] | None = None
) -> tuple[Polish, list[Trial]]:
    """Judge and time what is one step from the frontier in one field, and in two at once, until it stops moving.

    Args:
        evaluator: of the space on the chip, which is estimated and not measured.
        trials: of the chip so far; those of an earlier polish are among them.
        progress: called with (neighbours judged, the limit).

    Returns:
        What was done, and the trials to keep: every shape beside the sampled ones that lies on the frontier, numbered
        by its place in the space.
    """
    space = evaluator.space
    known = Known([], [], set())
    # Of equal rows the first is on the frontier: what was sampled is not found again.
    for trial in sorted(trials, key=lambda one: one.mode == "polish"):
        if (number := number_of(space, trial.params)) is None:
            continue
        if trial.mode != "joint":  # which tried some tiles alone
            known.timed.add(number)
        if isinstance(trial.outcome, Answered):
            known.numbers.append(number)
            known.values.append([one.value(trial.outcome.pairs, evaluator.chip) for one in space.objectives])
    sampled = sum(bool(trial.pairs) and trial.mode != "polish" for trial in trials)
    steps = list(climb(space, known, lambda numbers: time_points(evaluator, numbers), progress))
    kept = sorted(known.numbers[row] for row in known.front(space) if row >= sampled)[:MOST_KEPT]
    done = Polish(
        chip=evaluator.chip.name,
        trials=sum(trial.mode != "polish" for trial in trials),
        shapes=sum(steps),
        rounds=len(steps),
        settled=not _wanted(space, known),
        kept=len(kept),
    )
    return done, trials_of(evaluator, kept, "polish")


def climb(
    space: Space,
    known: Known,
    time: Callable[[list[int]], TimedPoints],
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[int]:
    """Time the neighbours of the frontier until it stops moving, or as many as the space allows.

    Args:
        space: of the points.
        known: what was timed before; what is timed is added to it.
        time: judges and times points.
        progress: called with (neighbours judged, the limit).

    Yields:
        How many neighbours were judged, each time.
    """
    judged, limit = 0, space.budget.polish
    while judged < limit and (wanted := _spread(_wanted(space, known), min(limit - judged, _AT_ONCE))):
        known.timed.update(wanted)
        found = time(wanted)
        known.numbers += found.numbers
        known.values += found.values.tolist()
        judged += len(wanted)
        yield len(wanted)
        if progress:
            progress(judged, limit)


def _wanted(space: Space, known: Known) -> list[int]:
    """What is one step from the frontier in one field; where all of it was timed, what is so in two fields at once."""
    front = [known.numbers[row] for row in known.front(space)]
    for fields in (0, 1, 2):  # 0: a shape that was proposed with tiles, at its best ones
        near = (number for one in front for number in ([one] if fields == 0 else neighbours(space, one, fields)))
        if wanted := [number for number in dict.fromkeys(near) if number not in known.timed]:
            return wanted
    return []


def _spread(numbers: list[int], most: int) -> list[int]:
    """At most so many of them, taken evenly."""
    if len(numbers) <= most:
        return numbers
    return [numbers[place * len(numbers) // most] for place in range(most)]
