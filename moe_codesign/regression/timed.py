"""Time a suite's cases here against another revision, side by side in two processes."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from moe_codesign.arrays import F64
from moe_codesign.errors import UserError
from moe_codesign.execution.scratch import scratch_folder
from moe_codesign.measure.verification import clock
from moe_codesign.regression.git import at_revision
from moe_codesign.regression.race import NoTimeError, Race, side_of
from moe_codesign.regression.suite import Suite, TimedTable
from moe_codesign.regression.verdict import BLOCKS, MARGIN, Verdict, decide

_START_S = 60.0
_LIMIT = 3.0
"""A case ends after its start and this many times the seconds that its blocks are timed for, clear or not."""
_FIXED = "its operands are the same for every seed, so that a remembered result would pass; let the case take a seed"


@dataclass(frozen=True)
class TimedResult:
    """One case. ``verdict`` is None where there is no time; ``reason`` says why, or what to know of a time."""

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
        text = "; ".join(one for one in (self.verdict and self.verdict.describe(), self.reason) if one)
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
        margin: a ratio nearer to 1 is no news; 0.03 is 3 %.
        report: called with the line of each result as it comes.

    Raises:
        UserError: no such revision or folder; nothing to time.
    """
    if not suite.timed:
        raise UserError(f"{suite.path} has no [[timed]] case", fix="add one, or leave --against out")
    found = []
    for case in suite.timed:
        folders = [(suite.path.parent / folder).resolve() for folder in case.import_from]
        with scratch_folder() as scratch:
            old = [at_revision(folder, against, scratch / str(i)) for i, folder in enumerate(folders)]
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
    until = clock() + _START_S + 2 * BLOCKS * _LIMIT * seconds
    race = Race(function, seconds, until)

    def block() -> F64:
        with side_of(folders, [], case.device) as ours, side_of(others, folders, case.device) as theirs:
            return race.block(ours, theirs)

    try:
        verdict = decide(block, margin=margin, late=lambda: clock() > until)
    except NoTimeError as problem:
        reason, comparable = str(problem), problem.comparable
        return TimedResult(case.name, case.device, race.error, race.tolerance, None, reason, comparable)
    if not race.fixed:
        return TimedResult(case.name, case.device, race.error, race.tolerance, verdict)
    if verdict.word == "faster":
        verdict = replace(verdict, word="unclear")
    return TimedResult(case.name, case.device, race.error, race.tolerance, verdict, _FIXED)
