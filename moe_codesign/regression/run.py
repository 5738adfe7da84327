"""One regression test from suite to verdict, kept in the database."""

import datetime
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from moe_codesign.compiler.build import Progress
from moe_codesign.errors import UserError
from moe_codesign.regression.baseline import (
    Baseline,
    Comparison,
    baseline_of,
    check_routings,
    compare_all,
    compilers,
    read_baseline,
    write_baseline,
)
from moe_codesign.regression.facts import Place
from moe_codesign.regression.git import revision
from moe_codesign.regression.observe import observe
from moe_codesign.regression.readings import Observation
from moe_codesign.regression.suite import Suite
from moe_codesign.regression.versions import StaleTile, environment_name, observe_with, stale_tiles
from moe_codesign.storage.regressions import RegressionRun, Regressions


@dataclass(frozen=True)
class RegressionResult:
    """One regression test.

    Args:
        suite: what was compiled.
        comparison: with the baseline; None where it has just been made.
        reasons: why a place has no facts, or what the compiler remarked of it.
        observed: places that were compiled.
        updated: whether the baseline was written anew.
    """

    suite: Suite
    comparison: Comparison | None
    reasons: dict[Place, str]
    observed: int
    updated: bool

    @property
    def failed(self) -> bool:
        """Whether something is worse than the baseline and was not accepted."""
        return self.comparison is not None and not self.updated and self.comparison.failed

    def to_json(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        return {
            "suite": self.suite.name,
            "problems": self.suite.problems,
            "failed": self.failed,
            "observed": self.observed,
            "reasons": [[*place, reason] for place, reason in self.reasons.items()],
            "comparison": None if self.comparison is None else self.comparison.to_json(),
        }


def regress_suite(
    suite: Suite, kept: Regressions, *, update: bool = False, jobs: int = 1, progress: Progress | None = None
) -> RegressionResult:
    """Compile the suite and compare it with its baseline; ``update`` writes the baseline anew.

    Raises:
        UserError: no baseline, or one of other routings; or a name in the suite that does not exist.
    """
    old = _old_baseline(suite, update)
    if old is not None and not update:
        check_routings(suite, old, suite.baseline)
    observations = observe(suite, jobs=jobs, progress=progress)
    if update and (unsure := [one for one in observations if one.facts.status in _NO_BASELINE]):
        raise UserError(
            f"baseline not written, {len(unsure)} without a result: {unsure[0].place}: {unsure[0].reason}",
            fix="correct the suite, or run it again where that was by chance",
        )
    new = baseline_of(observations)
    comparison = compare_all(suite, old, new) if old is not None else None
    if update:
        write_baseline(suite.baseline, new)
    worse = len(comparison.regressions) if comparison is not None else 0
    kept.put(_row(suite, observations, worse))
    reasons = {one.place: one.reason for one in observations if one.reason}
    return RegressionResult(suite, comparison, reasons, len(observations), update)


_NO_BASELINE = ("failed", "missing", "timeout", "crashed")
"""A limit that is broken (refused, unlaunchable) may be kept; what broke otherwise would then pass for ever."""


def _old_baseline(suite: Suite, update: bool) -> Baseline | None:
    """The committed facts; None where an update makes the first ones, or replaces a file that cannot be read."""
    try:
        return read_baseline(suite.baseline)
    except UserError:
        if update:
            return None
        raise


def _row(suite: Suite, observations: Sequence[Observation], worse: int) -> RegressionRun:
    return RegressionRun(
        suite=suite.name,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        revision=revision(suite.path.parent),
        versions=compilers(),
        regressions=worse,
        facts={one.place: one.facts.to_json() for one in observations},
    )


@dataclass(frozen=True)
class VersionColumn:
    """A suite's facts under one environment, compared with the first one's; and the tiles that went stale."""

    name: str
    baseline: Baseline
    comparison: Comparison
    stale: list[StaleTile] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        stale = [asdict(one) for one in self.stale]
        return {"version": self.name, "comparison": self.comparison.to_json(), "stale": stale}


def version_matrix(
    suite: Suite, environments: Sequence[tuple[str, ...]], *, jobs: int = 1, progress: Progress | None = None
) -> list[VersionColumn]:
    """The suite's facts under each environment, every one beside the first.

    Raises:
        UserError: an environment cannot be made.
    """
    found: list[VersionColumn] = []
    for done, requirements in enumerate(environments):
        if progress is not None:
            progress(done, len(environments))
        facts = observe_with(suite, requirements, jobs=jobs)
        first = found[0].baseline if found else facts
        found.append(
            VersionColumn(
                environment_name(requirements), facts, compare_all(suite, first, facts), stale_tiles(first, facts)
            )
        )
    if progress is not None:
        progress(len(environments), len(environments))
    return found
