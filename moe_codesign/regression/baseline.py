"""The committed facts of a suite: one sorted JSON file with a line for each fact, so that a diff shows what moved."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from moe_codesign.errors import UserError, first_line
from moe_codesign.files import read_file, replace_file
from moe_codesign.regression.facts import Facts, Place
from moe_codesign.regression.readings import Observation
from moe_codesign.regression.rules import Finding, compare
from moe_codesign.regression.suite import Suite
from moe_codesign.storage.regressions import FactRow
from moe_codesign.tables import Table
from moe_codesign.versions import compiler_version

_SEPARATOR = " | "


class _File(Table):
    """``kernels``: by a kernel's name, and then by ``chip | tile``."""

    made_with: dict[str, str]
    kernels: dict[str, dict[str, FactRow]]


@dataclass(frozen=True)
class Baseline:
    """The facts of a suite by the compilers that made them, which are named by backend."""

    made_with: dict[str, str]
    facts: dict[Place, Facts]


@dataclass(frozen=True)
class Comparison:
    """A run beside a baseline.

    Args:
        findings: what moved.
        new: places that the baseline does not know; new_without: those of them that cannot run.
        gone: places of the baseline that were not run.
        old_versions, new_versions: the compilers of the baseline and of the run.
    """

    findings: list[Finding]
    new: list[Place]
    gone: list[Place]
    new_without: list[Place]
    old_versions: dict[str, str]
    new_versions: dict[str, str]

    @property
    def regressions(self) -> list[Finding]:
        return [one for one in self.findings if one.change == "regression"]

    @property
    def failed(self) -> bool:
        """Whether something is worse, was not run, or is new and cannot run."""
        return bool(self.regressions or self.gone or self.new_without)

    def to_json(self) -> dict[str, Any]:
        """What ``--json`` prints: findings are flat objects, places lists of kernel, chip and tile."""
        return {
            "findings": [one.to_json() for one in self.findings],
            "new": self.new,
            "gone": self.gone,
            "new_without": self.new_without,
            "old_versions": self.old_versions,
            "new_versions": self.new_versions,
        }


def compilers() -> dict[str, str]:
    """The compilers that facts depend on, by backend."""
    return {backend: compiler_version(backend) for backend in ("triton", "pallas")}


def baseline_of(found: Sequence[Observation]) -> Baseline:
    """Make a baseline of what a run of this process found."""
    return Baseline(compilers(), {one.place: one.facts for one in found})


def read_baseline(path: Path) -> Baseline:
    """Read a file that :func:`write_baseline` wrote.

    Raises:
        UserError: there is no such file, or it is no baseline.
    """
    facts: dict[Place, Facts] = {}
    try:
        file = _File.model_validate_json(read_file(path))
        for name, of_kernel in file.kernels.items():
            for where, row in of_kernel.items():
                chip, _, tile = where.partition(_SEPARATOR)
                facts[Place(name, chip, tile)] = Facts.from_json(row)
    except FileNotFoundError:
        raise UserError(f"no baseline {path}", fix="make it with --update, and commit it") from None
    except (ValidationError, OSError) as error:
        text = first_line(error)
        raise UserError(f"baseline {path} cannot be read ({text})", fix="make it again with --update") from None
    return Baseline(file.made_with, facts)


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Write the facts sorted by kernel, chip and tile, in one step."""
    kernels: dict[str, dict[str, FactRow]] = {}
    for (name, chip, tile), facts in sorted(baseline.facts.items()):
        kernels.setdefault(name, {})[f"{chip}{_SEPARATOR}{tile}" if tile else chip] = facts.to_json()
    text = json.dumps({"made_with": baseline.made_with, "kernels": kernels}, indent=1)
    replace_file(path, text.encode() + b"\n")


def check_routings(suite: Suite, baseline: Baseline, path: Path) -> None:
    """Refuse a baseline whose times are of other routings than the suite's: they are times of other problems.

    Raises:
        UserError: names the first such problem.
    """
    for place, facts in baseline.facts.items():
        for asked in suite.times.get(place.kernel, ()):
            known = {f.routing for f in facts.numbers if (f.name, f.problem) == (asked.name, asked.problem)}
            if not known or asked.routing in known:
                continue
            named = sorted(routing for routing in known if routing is not None)
            has = f"has it by {', '.join(named)} routing" if named else "does not name its routing"
            again = "make the baseline again with --update"
            raise UserError(
                f"the suite times {asked.asked}, and baseline {path.name} {has}",
                fix=f'write routing = "{named[0]}" in the suite, or {again}' if named else again,
            )


def compare_all(suite: Suite, old: Baseline, new: Baseline) -> Comparison:
    """Compare every fact with the old one, by the suite's rules."""
    rules = suite.rules_by_kernel()
    findings = [
        finding
        for place, facts in new.facts.items()
        if place in old.facts
        for finding in compare(place, old.facts[place], facts, rules[place.kernel])
    ]
    return Comparison(
        findings,
        new=[place for place in new.facts if place not in old.facts],
        gone=[place for place in old.facts if place not in new.facts],
        new_without=[place for place, facts in new.facts.items() if place not in old.facts and not facts.ok],
        old_versions=old.made_with,
        new_versions=new.made_with,
    )
