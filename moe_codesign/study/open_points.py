"""Which points of a space are still worth a trial: those that break no constraint and were not tried yet."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from moe_codesign.domain.failure import Failure, FailureKind
from moe_codesign.domain.shape import MoEShape
from moe_codesign.errors import MachineError
from moe_codesign.study.points import neighbours, number_at, places, point_count, points
from moe_codesign.study.space import Space

Judge = Callable[[Sequence[MoEShape]], list[Failure | None]]
"""What stands against each shape before it is timed; None where nothing does."""
MOST_JUDGED = 1_000_000
"""Points that are looked at, in the end, for one that meets the constraints: about a minute."""
_AT_ONCE = 1024
_REMEMBERED = 1_000_000
_GOLDEN = 0.6180339887498949


class OpenPoints:
    """The points of a space that are open: they meet every constraint that needs no time, and are not used up.

    What it answers depends on the space and on what was used, not on what was asked before: a search that goes on in
    another process is answered alike.

    Args:
        space: of the points.
        reference: of the fields that the space does not name.
        judge: the constraints.
        uses: how often a point can be used: once, or as often as it has tiles to be tried with.
    """

    def __init__(self, space: Space, reference: MoEShape, judge: Judge, uses: int = 1) -> None:
        self.space, self.uses = space, uses
        self.used: Counter[int] = Counter()
        self._reference, self._judge = reference, judge
        self._total = point_count(space)
        self._stride = next(
            step
            for step in range(max(int(self._total * _GOLDEN), 1), self._total + 2)
            if math.gcd(step, self._total) == 1
        )
        self._known: dict[int, Failure | None] = {}
        self._start = 0  # every point before it, in the order of _scan, is not open and never will be

    def failures(self, numbers: Sequence[int]) -> list[Failure | None]:
        """What stands against each point before it is timed; None where nothing does."""
        if len(self._known) > _REMEMBERED:
            self._known.clear()
        shapes = []
        asked = [number for number in numbers if number not in self._known]
        for number, (_, shape) in points(self.space, self._reference, asked):
            if isinstance(shape, Failure):
                self._known[number] = shape
            else:
                shapes.append((number, shape))
        if shapes:
            judged = self._judged([shape for _, shape in shapes])
            self._known.update(zip((number for number, _ in shapes), judged, strict=True))
        return [self._known[number] for number in numbers]

    def _judged(self, shapes: Sequence[MoEShape]) -> list[Failure | None]:
        try:
            return self._judge(shapes)
        except MachineError:
            raise
        except Exception:
            if len(shapes) == 1:
                return [None]  # its trial says what was raised
            return [failure for shape in shapes for failure in self._judged([shape])]

    def is_open(self, number: int) -> bool:
        """Whether a point is worth a trial."""
        return bool(self.open_among([number]))

    def open_among(self, numbers: Sequence[int]) -> list[int]:
        """Those of the points that are worth a trial."""
        left = [number for number in numbers if self.used[number] < self.uses]
        return [number for number, failure in zip(left, self.failures(left), strict=True) if failure is None]

    def any_left(self) -> bool:
        """Whether any point is open, among the first ``MOST_JUDGED`` in an order that is spread over the space."""
        return next(self._scan(), None) is not None

    def nearest(self, number: int) -> int | None:
        """An open point near a point; None where no point is open.

        It is the point itself, one that is one or two steps away, or else one on the way to an open point farther off.
        """
        for near in ([number], neighbours(self.space, number), neighbours(self.space, number, 2)):
            if found := self.open_among(near):
                return found[0] if len(found) == 1 else found[_mixed(number) % len(found)]
        block = next(self._scan(), None)
        if block is None:
            return None
        size = np.array([max(len(every) - 1, 1) for every in self.space.varied.values()])
        here = np.array(places(self.space, number))
        there = np.array([places(self.space, one) for one in block])
        far = np.abs((there - here) / size).sum(axis=1)
        target = there[int(np.argmin(far))]
        steps = int(np.abs(target - here).max())
        way = [
            number_at(self.space, np.rint(here + (target - here) * i / steps).astype(int).tolist())
            for i in range(1, steps + 1)
        ]
        return self.open_among(way)[0]

    def why_none(self) -> str:
        """What rules the points out where none was ever open: how many were judged, and the counts of each kind."""
        refused: Counter[FailureKind] = Counter()
        last = min(self._total, MOST_JUDGED)
        for start in range(0, last, _AT_ONCE):
            block = self._block(start)
            refused.update(failure.kind for failure in self.failures(block) if failure is not None)
        of = "all" if last == self._total else f"{last:,} of"
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in refused.most_common())
        return f"{of} {self._total:,} shapes of the space are ruled out: {kinds}"

    def _scan(self) -> Iterator[list[int]]:
        """The open points, some at a time, in an order that is spread over the space."""
        last = min(self._total, MOST_JUDGED)
        for start in range(self._start, last, _AT_ONCE):
            if found := self.open_among(self._block(start)):
                yield found
            elif start == self._start:
                self._start += _AT_ONCE  # what is used stays used

    def _block(self, start: int) -> list[int]:
        last = min(start + _AT_ONCE, self._total, MOST_JUDGED)
        return [place * self._stride % self._total for place in range(start, last)]


def _mixed(number: int) -> int:
    """A number that looks random, so that no direction is preferred."""
    return (number * 0x9E3779B97F4A7C15 >> 17) & 0xFFFFFFFF
