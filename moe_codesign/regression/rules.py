"""What counts as worse: one rule for each fact, and the comparison of two sets of facts."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from moe_codesign.regression.facts import Fact, Facts, Place
from moe_codesign.tables import Table

Change = Literal["regression", "better", "moved"]


class Rule(Table):
    """How far a fact may move in its bad direction: ``percent`` of the old value, or ``by`` units, whichever is more.

    ``worse`` = ``change``: in neither direction.
    """

    worse: Literal["more", "less", "change"] = "more"
    percent: Annotated[float, Field(ge=0)] = 0.0
    by: Annotated[float, Field(ge=0)] = 0.0

    def describe(self) -> str:
        allowed = [f"{self.percent:g} %"] if self.percent else []
        allowed += [f"{self.by:g}"] if self.by else []
        word = {"more": "more", "less": "less", "change": "changed"}[self.worse]
        return f"never {word}" + (f" by over {' or '.join(allowed)}" if allowed else "")

    def judge(self, old: float, new: float) -> Change | None:
        """What the step from old to new is; None if they are the same."""
        if new == old:
            return None
        gone = (old - new if self.worse == "less" else new - old) if self.worse != "change" else abs(new - old)
        beyond = gone > max(self.by, self.percent / 100 * abs(old)) * (1 + 1e-9)
        return "regression" if beyond else "moved" if gone >= 0 else "better"


DEFAULT_RULES: dict[str, Rule] = {
    # Occupancy and spills are steps, not slopes: one spilled register in a loop is a round trip an iteration.
    "spill_bytes": Rule(),
    "resident_blocks": Rule(worse="less"),
    "registers": Rule(percent=10),
    "shared_bytes": Rule(percent=5),
    "code_bytes": Rule(percent=20),
    # A loop unrolled otherwise has other counts and the same ratio.
    "instructions_per_matrix": Rule(percent=5),
    "matrix_instructions": Rule(worse="less", percent=50),
    "async_copies": Rule(worse="less", percent=50),
    "narrow_loads": Rule(percent=25, by=2),
    "spills": Rule(),
    "cycles": Rule(percent=5),
    "step_cycles": Rule(percent=5),
    "bundles": Rule(percent=10),
    "dma_bytes": Rule(percent=2),
    "vmem_bytes": Rule(percent=5),
    "latency_us": Rule(percent=5),
}
"""A fact without a rule is reported when it moves, and fails nothing. ``latency_us`` has one rule for all problems."""
FACTS = (*DEFAULT_RULES, "instructions")
"""Every fact that can have a rule."""


@dataclass(frozen=True)
class Finding:
    """What moved of one compiled kernel: a fact, or its status, its reason or the tile that a default stands for."""

    place: Place
    what: Fact | Literal["status", "reason", "tile"]
    old: float | str | None
    new: float | str | None
    change: Change
    rule: str = ""

    @property
    def name(self) -> str:
        """What moved, whatever the problem."""
        return self.what.name if isinstance(self.what, Fact) else self.what

    def line(self) -> str:
        """``kernel | chip | tile: fact old -> new (rule)``."""
        why = f" ({self.rule})" if self.rule else ""
        return f"{self.place}: {self.what} {number_text(self.old)} -> {number_text(self.new)}{why}"

    def to_json(self) -> dict[str, float | str | None]:
        """One flat object."""
        moved = {"fact": str(self.what), "old": self.old, "new": self.new, "change": self.change, "rule": self.rule}
        return {**self.place._asdict(), **moved}


def number_text(value: float | str | None) -> str:
    """A fact as a table prints it."""
    if value is None:
        return "none"
    if isinstance(value, str):
        return value
    return f"{value:.0f}" if math.isfinite(value) and value == int(value) else f"{value:.4g}"


def compare(place: Place, old: Facts, new: Facts, rules: Mapping[str, Rule | None]) -> Iterator[Finding]:
    """Everything that moved at a place, with what the rule says of it; ``rules`` are by the facts' names."""
    if old.status != new.status:
        why = "" if new.ok else "never other than ok"
        yield Finding(place, "status", old.status, new.status, "better" if new.ok else "regression", why)
        return
    if old.reason != new.reason:
        yield Finding(place, "reason", old.reason, new.reason, "moved")
    if old.tile != new.tile:
        yield Finding(place, "tile", old.tile, new.tile, "moved")
    for fact in dict.fromkeys((*old.numbers, *new.numbers)):
        before, after, rule = old.numbers.get(fact), new.numbers.get(fact), rules.get(fact.name)
        if before is None or after is None:
            # A fact that is gone is a loop without matrix instructions, a count that the compiler no longer makes.
            # One that is there by another routing is another fact.
            replaced = any(
                (f.name, f.problem) == (fact.name, fact.problem) for f in new.numbers if f not in old.numbers
            )
            lost = after is None and rule is not None and not replaced
            yield Finding(place, fact, before, after, "regression" if lost else "moved", "never gone" if lost else "")
            continue
        change: Change | None
        if math.isnan(after):  # wrong in a way that no comparison sees
            change = "regression"
        else:
            change = rule.judge(before, after) if rule is not None else "moved" if before != after else None
        if change is not None:
            yield Finding(place, fact, before, after, change, rule.describe() if rule is not None else "")
