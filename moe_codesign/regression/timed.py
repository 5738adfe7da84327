"""Time a suite's cases here against another revision, side by side in two processes."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from moe_codesign.arrays import F64
from moe_codesign.errors import UserError
from moe_codesign.execution import Done, Pool
from moe_codesign.regression import side
from moe_codesign.regression.git import at_revision
from moe_codesign.regression.suite import Suite, TimedTable
from moe_codesign.regression.verdict import MARGIN, Verdict, judge
from moe_kernels.reference import row_error

TIME_LIMIT_S = 120.0
_SAMPLE_US = 3000.0
"""A sample is as many runs as take this: timers and scheduling are then below a percent."""
_BLOCKS = (8, 8)
"""Fresh pairs of processes; more where the verdict is unclear."""
_T = TypeVar("_T")


@dataclass(frozen=True)
class TimedResult:
    """One case. ``verdict`` is None where there is no time, and ``reason`` says why."""

    name: str
    device: str
    row_error: float | None
    tolerance: float | None
    verdict: Verdict | None
    reason: str = ""
    comparable: bool = True

    @property
    def failed(self) -> bool:
        """The candidate is slower, or has no result; not where the other revision has none."""
        return self.comparable and (self.verdict is None or self.verdict.word == "slower")

    @property
    def unclear(self) -> bool:
        """The case was timed, and noise hides whether it is slower."""
        return self.verdict is not None and self.verdict.word == "unclear"

    def line(self, against: str) -> str:
        text = self.verdict.describe() if self.verdict is not None else self.reason
        return f"{self.name} | {self.device} | beside {against}: {text}"


def time_suite(
    suite: Suite,
    against: str,
    *,
    seconds: float = 2.0,
    margin: float = MARGIN,
    report: Callable[[str], None] | None = None,
) -> list[TimedResult]:
    """Every timed case of the suite.

    Args:
        against: git revision whose folders (``import_from``) the working tree's are timed against.
        seconds: of timing for each fresh pair of processes.
        margin: a ratio nearer to 1 is no news.
        report: called with the line of each result as it comes.

    Raises:
        UserError: no such revision or folder; nothing to time.
    """
    if not suite.timed:
        raise UserError(f"{suite.path} has no [[timed]] case", fix="add one, or leave --against out")
    found = []
    for case in suite.timed:
        folders = [(suite.path.parent / folder).resolve() for folder in case.import_from]
        with tempfile.TemporaryDirectory(prefix="moe-codesign-revision-") as scratch:
            old = [at_revision(folder, against, Path(scratch) / str(i)) for i, folder in enumerate(folders)]
            file, _, name = case.function.rpartition(":")
            function = f"{(suite.path.parent / file).resolve()}:{name}"
            result = time_case(case, function, folders, old, seconds=seconds, margin=margin)
        found.append(result)
        if report is not None:
            report(result.line(against))
    return found


def time_case(
    case: TimedTable, function: str, folders: list[Path], others: list[Path], *, seconds: float, margin: float = MARGIN
) -> TimedResult:
    """One case with its modules from ``folders`` (the candidate) beside those from ``others``."""
    blocks: list[F64] = []
    error = tolerance = None
    try:
        for count in _BLOCKS:
            for _ in range(count):
                sides = (_side(folders, [], case.device), _side(others, folders, case.device))
                with sides[0] as ours, sides[1] as theirs:
                    error, tolerance = _check(ours, function)
                    try:
                        was, _ = _check(theirs, function)
                    except _SideError as problem:
                        was, other_reason = np.inf, f"the other revision: {problem}"
                    else:
                        other_reason = f"the other revision's result is wrong: row_error {was:.3g}"
                    if not error <= tolerance:
                        reason = f"wrong result: row_error {was:.3g} -> {error:.3g} (never more than {tolerance:.3g})"
                        return TimedResult(case.name, case.device, error, tolerance, None, reason)
                    if not was <= tolerance:
                        reason = f"not comparable, {other_reason}"
                        return TimedResult(case.name, case.device, error, tolerance, None, reason, comparable=False)
                    blocks.append(_pairs(ours, theirs, seconds))
            verdict = judge(blocks, margin=margin)
            if verdict.word != "unclear":
                break
    except _SideError as problem:
        return TimedResult(case.name, case.device, error, tolerance, None, str(problem))
    return TimedResult(case.name, case.device, error, tolerance, verdict)


class _SideError(Exception):
    """A side died, hung or raised."""


_Call = Callable[..., Any]


@contextmanager
def _side(folders: list[Path], not_from: list[Path], device: str) -> Iterator[_Call]:
    """Calls into a fresh process, each with a time limit."""
    entered = ([str(folder) for folder in folders], [str(folder) for folder in not_from], device)
    with Pool(1, initializer=side.enter, initargs=entered) as pool:

        def call(function: Callable[..., _T], *arguments: Any) -> _T:
            outcome = pool.call(function, *arguments, time_limit_s=TIME_LIMIT_S)
            if not isinstance(outcome, Done):
                raise _SideError(str(outcome))
            return outcome.value

        pool.start()  # not waited for: both sides start at once
        yield call


def _check(call: _Call, function: str) -> tuple[float, float]:
    """Row error of a run, and what is allowed."""
    found, expected, tolerance = call(side.prepare, function)
    if found.shape != expected.shape:
        raise _SideError(f"wrong result: shape {found.shape}, expected {expected.shape}")
    rows = found.reshape(-1, found.shape[-1]) if found.ndim else found.reshape(1, 1)
    return row_error(rows, expected.reshape(rows.shape)), tolerance


def _pairs(ours: _Call, theirs: _Call, seconds: float) -> F64:
    """Log ratios of neighbouring samples, in turning order."""
    for call in (ours, theirs):
        call(side.sample, 1)
    once = max(min(call(side.sample, 3) for call in (ours, theirs)), 1.0)
    times = max(1, round(_SAMPLE_US / once))
    count = int(np.clip(seconds * 1e6 / (2 * times * once), 10, 200))
    ratios = np.empty(count)
    for i in range(count):
        if i % 2:
            other = theirs(side.sample, times)
            own = ours(side.sample, times)
        else:
            own = ours(side.sample, times)
            other = theirs(side.sample, times)
        ratios[i] = np.log(own / other)
    return ratios
