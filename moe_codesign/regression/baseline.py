"""The committed facts of a suite: one sorted JSON file, a line a fact, so that a diff shows what moved."""

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from moe_codesign.errors import UserError, first_line
from moe_codesign.regression.readings import Observation, Place
from moe_codesign.regression.rules import Facts, Finding, compare
from moe_codesign.regression.suite import Suite
from moe_codesign.tables import Table
from moe_codesign.versions import compiler_version

_SEPARATOR = " | "


class _File(Table):
    """``kernels``: kernel to ``chip | tile`` to fact to value."""

    made_with: dict[str, str]
    kernels: dict[str, dict[str, dict[str, int | float | str]]]


@dataclass(frozen=True)
class Baseline:
    """What was true when it was written, and the compilers that it was true of."""

    made_with: dict[str, str]
    facts: dict[Place, Facts]


@dataclass(frozen=True)
class Comparison:
    """A run beside a baseline: what moved, what the baseline does not know, what was not run."""

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
        """Something is worse, was not run, or is new and has no binary."""
        return bool(self.regressions or self.gone or self.new_without)


def compilers() -> dict[str, str]:
    """The compilers that facts depend on, with their versions."""
    return {backend: compiler_version(backend) for backend in ("triton", "pallas")}


def baseline_of(found: Sequence[Observation]) -> Baseline:
    """What a run found, by the compilers of this process."""
    return Baseline(compilers(), {one.place: one.facts for one in found})


def read_baseline(path: Path) -> Baseline:
    """Raises UserError: there is none, or it is no baseline."""
    try:
        file = _File.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"no baseline {path}", fix="make it with --update, and commit it") from None
    except (ValidationError, OSError) as error:
        text = first_line(error)
        raise UserError(f"baseline {path} cannot be read ({text})", fix="make it again with --update") from None
    facts: dict[Place, Facts] = {}
    for name, of_kernel in file.kernels.items():
        for where, values in of_kernel.items():
            chip, _, tile = where.partition(_SEPARATOR)
            facts[name, chip, tile] = values
    return Baseline(file.made_with, facts)


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Sorted by kernel, chip and tile; whole or not at all."""
    kernels: dict[str, dict[str, Facts]] = {}
    for (name, chip, tile), facts in sorted(baseline.facts.items()):
        kernels.setdefault(name, {})[f"{chip}{_SEPARATOR}{tile}" if tile else chip] = facts
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    with os.fdopen(handle, "w") as file:
        file.write(json.dumps({"made_with": baseline.made_with, "kernels": kernels}, indent=1) + "\n")
    Path(temporary).chmod(0o644)
    os.replace(temporary, path)


def compare_all(suite: Suite, old: Baseline, new: Baseline) -> Comparison:
    """Every fact beside the old one's, by the suite's rules."""
    rules = {table.label: suite.rules_for(table) for table in suite.kernels}

    def rules_of(name: str) -> str:
        # Of ours the op and the data type follow.
        return name if name in rules else name.rsplit(" ", 2)[0]

    findings = [
        finding
        for place, facts in new.facts.items()
        if place in old.facts
        for finding in compare(place, old.facts[place], facts, rules[rules_of(place[0])])
    ]
    return Comparison(
        findings,
        [place for place in new.facts if place not in old.facts],
        [place for place in old.facts if place not in new.facts],
        [place for place, facts in new.facts.items() if place not in old.facts and facts.get("status") != "ok"],
        old.made_with,
        new.made_with,
    )
