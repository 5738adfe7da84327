"""Times and checks of two revisions of a case, each in a process of its own.

The candidate is checked against what the *other* process expects: a reference and a tolerance of its own would say what
it likes. Every run that is timed has operands that neither process has seen, and results of timed runs are checked as
well as those before and after.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from moe_codesign.arrays import F64
from moe_codesign.execution import Done, Pool, Raised
from moe_codesign.measure.samples import typical
from moe_codesign.measure.verification import Tolerance, WrongResultError, check, clock
from moe_codesign.regression import side
from moe_codesign.regression.verdict import log_ratio

TIME_LIMIT_S = 120.0
"""Of one call into a process."""
_SAMPLE_US = 3000.0
"""A sample is as many runs as take this on the slower side, at most :data:`_MOST_RUNS`."""
_MOST_RUNS = 16
_PAIRS = (6, 200)
"""Pairs of samples in a block, at least and at most; two where they take longer than the block has."""
_CHECKS = 2
"""Seeds that are checked before a block is timed; and as many after it."""
_AGAIN = 3.0
"""A second run on the same operands may be so many times faster than the first, or by _AGAIN_US."""
_AGAIN_US = 1000.0
_SLOW_US = 1e6
"""A side that takes so long is run no more often than it must."""
_T = TypeVar("_T")
Call = Callable[..., Any]


class NoTimeError(Exception):
    """There is no time, and why. It speaks against the candidate, unless it is not ``comparable``."""

    def __init__(self, text: str, *, comparable: bool = True) -> None:
        super().__init__(text)
        self.comparable = comparable


class _SideError(Exception):
    """A side died, hung or raised."""


@contextmanager
def side_of(folders: list[Path], not_from: list[Path], device: str) -> Iterator[Call]:
    """Calls into a fresh process, each with a time limit."""
    entered = ([str(folder) for folder in folders], [str(folder) for folder in not_from], device)
    with Pool(1, initializer=side.enter, initargs=entered) as pool:

        def call(function: Callable[..., _T], *arguments: Any) -> _T:
            outcome = pool.call(function, *arguments, time_limit_s=TIME_LIMIT_S)
            if isinstance(outcome, Raised) and outcome.kind == WrongResultError.__name__:
                raise _SideError(f"wrong result: {outcome.text}")
            if not isinstance(outcome, Done):
                raise _SideError(str(outcome))
            return outcome.value

        pool.start()  # not waited for: both sides start at once
        yield call


class Race:
    """One case, over all its blocks.

    Args:
        function: ``file.py:name`` of the case.
        seconds: of timing for each block.
        until: when, on the clock, a block takes no more pairs than it must.

    Attributes:
        error, tolerance: of the candidate's last check.
        fixed: whether the case expects the same for every seed.
    """

    def __init__(self, function: str, seconds: float, until: float) -> None:
        self._function, self._seconds, self._until = function, seconds, until
        self._lot = random.SystemRandom()
        self.error: float | None = None
        self.tolerance: float | None = None
        self.fixed = False

    def block(self, ours: Call, theirs: Call) -> F64:
        """Log ratios of neighbouring samples, in turning order, from two fresh processes.

        Raises:
            NoTimeError: a side has no result or a wrong one, or its times cannot be believed.
        """
        expected = [self._check(ours, theirs, own_reference=not number) for number in range(_CHECKS)]
        self.fixed = bool(np.array_equal(expected[0], expected[1]))
        try:
            return self._pairs(ours, theirs)
        except _SideError as problem:
            raise NoTimeError(str(problem)) from None

    def _pairs(self, ours: Call, theirs: Call) -> F64:
        end = min(clock() + self._seconds, self._until)
        watches = [_Watch(ours), _Watch(theirs)]
        once = max(self._once(watch) for watch in watches)
        times = int(np.clip(_SAMPLE_US / once, 1, _MOST_RUNS))
        least = _PAIRS[0] if once * _PAIRS[0] < 1e6 * self._seconds else 2
        ratios: list[float] = []
        timing = checking = 0.0
        while len(ratios) < least or (len(ratios) < _PAIRS[1] and clock() < end):
            start = clock()
            seeds = self._seeds(times)
            for watch in watches:
                watch.call(side.build, self._function, seeds)
            samples = {watch: watch.sample() for watch in watches[:: -1 if len(ratios) % 2 else 1]}
            ratios.append(log_ratio(*(samples[watch] for watch in watches)))
            timed = clock()
            timing += timed - start
            # Results that were timed are checked by lot, for up to half the time that they take.
            if len(ratios) == least or (checking < timing / 2 and self._lot.random() < 0.5):
                index = self._lot.randrange(times)
                found, was = (watch.call(side.result, index) for watch in watches)
                self._compare(found, was, *self._reference(theirs, seeds[index]))
                checking += clock() - timed
        for _ in range(_CHECKS if once < _SLOW_US else 1):
            self._check(ours, theirs)
        watches[0].compare(watches[1])
        return np.array(ratios)

    def _once(self, watch: "_Watch") -> float:
        """Microseconds of a run on new operands.

        Raises:
            NoTimeError: a second run on the same ones is so much faster that the first cannot be what users see.
        """
        first: list[float] = []
        second: list[float] = []
        for seed in self._seeds(2):
            watch.call(side.build, self._function, [seed])
            first += watch.call(side.sample)
            if first[-1] > _SLOW_US:
                return first[-1]
            second += watch.call(side.sample)
        if min(first) > max(_AGAIN * max(second), max(second) + _AGAIN_US):
            raise NoTimeError(
                f"a first run takes {min(first):.0f} us, a second one on the same operands {max(second):.0f} us: it "
                "remembers its result, or it compiles in its first run; compile outside of the case"
            )
        return max(typical(first), 1.0)

    def _check(self, ours: Call, theirs: Call, *, own_reference: bool = False) -> F64:
        """Run both sides on new operands, and compare with what the other side expects."""
        (seed,) = self._seeds(1)
        try:
            found = self._run(ours, seed)
        except _SideError as problem:
            raise NoTimeError(str(problem)) from None
        try:
            was = self._run(theirs, seed)
            expected, tolerance = self._reference(theirs, seed)
        except _SideError as problem:
            self._compare(found, found, *self._own_reference(ours, seed))
            raise NoTimeError(f"not comparable, the other revision: {problem}", comparable=False) from None
        if own_reference:
            own, own_tolerance = self._own_reference(ours, seed)
            try:
                check(own, expected, Tolerance(tolerance))
            except WrongResultError as wrong:
                raise NoTimeError(f"the two revisions expect different results: {wrong}") from None
            tolerance = min(tolerance, own_tolerance)
        self._compare(found, was, expected, tolerance)
        return expected

    def _run(self, call: Call, seed: int) -> F64:
        call(side.build, self._function, [seed])
        call(side.sample)
        found: F64 = call(side.result, 0)
        return found

    def _reference(self, call: Call, seed: int) -> tuple[F64, float]:
        found: tuple[F64, float] = call(side.reference, self._function, seed)
        return found

    def _own_reference(self, ours: Call, seed: int) -> tuple[F64, float]:
        try:
            return self._reference(ours, seed)
        except _SideError as problem:
            raise NoTimeError(str(problem)) from None

    def _compare(self, found: F64, was: F64, expected: F64, tolerance: float) -> None:
        self.tolerance = tolerance = min(tolerance, self.tolerance if self.tolerance is not None else tolerance)
        before, wrong_before = _error(was, expected, tolerance)
        self.error, wrong = _error(found, expected, tolerance)
        if wrong.startswith("row error"):
            wrong = f"row_error {before:.3g} -> {self.error:.3g} (never more than {tolerance:.3g})"
        if wrong:
            raise NoTimeError(f"wrong result: {wrong}")
        if wrong_before:
            text = f"not comparable, the other revision's result is wrong: {wrong_before}"
            raise NoTimeError(text, comparable=False)

    def _seeds(self, count: int) -> list[int]:
        """Nobody can foresee them, so that nothing can be prepared."""
        return [self._lot.getrandbits(31) for _ in range(count)]


def _error(found: F64, expected: F64, tolerance: float) -> tuple[float, str]:
    """The row error, and what is wrong, if anything is."""
    try:
        return check(found, expected, Tolerance(tolerance)), ""
    except WrongResultError as wrong:
        return wrong.error, str(wrong)


class _Watch:
    """A side, and what this process sees of the time that its samples take."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self._said_us: list[float] = []
        self._seen_us: list[float] = []

    def sample(self) -> list[float]:
        """Microseconds of each run."""
        start = clock()
        times: list[float] = self.call(side.sample)
        self._seen_us.append((clock() - start) * 1e6)
        self._said_us.append(sum(times))
        return times

    def hidden_us(self) -> float:
        """What a sample took here beyond what it said; the median, as any process has to wait now and then."""
        return float(np.median(np.subtract(self._seen_us, self._said_us)))

    def compare(self, other: "_Watch") -> None:
        """Raise where this side has said much less than it took; what calls cost beside, the other side's cost too.

        Raises:
            NoTimeError: its clock cannot be believed.
        """
        seen = float(np.median(self._seen_us))
        if self.hidden_us() > 3 * max(other.hidden_us(), 0.0) + 0.25 * seen + 5e4 / len(self._seen_us):
            said = float(np.median(self._said_us))
            raise NoTimeError(f"its clock is wrong: what it times at {said:.0f} us takes {seen:.0f} us")
