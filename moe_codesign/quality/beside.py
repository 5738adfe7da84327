"""All that is said of one shape's quality beside a reference, for a row of a table and for a few sentences."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from moe_codesign.domain.shape import MoEShape
from moe_codesign.quality.judge import Judge


@dataclass(frozen=True)
class Beside:
    """The quality of a shape beside a reference.

    Args:
        reference: the model that ratios are over.
        law: the law that was asked for.
        ratio: quality over the reference's by that law; None where it has no say.
        low, high: the least and the largest ratio of all laws that have a say; None where there is no such law.
        by_law: the ratio by every law that has a say, the one that was asked for first.
        unusable: why the law that was asked for has no say; else empty.
        outside: what of the shape that law's experiments did not cover, and how far outside it is.
        notes: what holds for every ratio over this reference, a sentence each.
    """

    reference: str
    law: str
    ratio: float | None
    low: float | None
    high: float | None
    by_law: dict[str, float]
    unusable: str
    outside: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def by_law_text(self) -> str:
        """JSON of :attr:`by_law`, to four decimals."""
        return json.dumps({law: round(ratio, 4) for law, ratio in self.by_law.items()})


def beside(judge: Judge, shapes: Sequence[MoEShape]) -> list[Beside]:
    """The quality of every shape beside the judge's reference, all computed together."""
    if not shapes:
        return []
    qualities = judge.qualities(shapes)
    law, notes = judge.law.name, judge.notes()
    found = []
    for place, shape in enumerate(shapes):
        usable = bool(qualities.usable[place])
        by_law = {law: float(qualities.ratio[place])} if usable else {}
        by_law |= {
            name: float(ratios[place]) for name, ratios in qualities.by_law.items() if math.isfinite(ratios[place])
        }
        found.append(
            Beside(
                reference=judge.reference.name or judge.reference.label(),
                law=law,
                ratio=by_law.get(law),
                low=min(by_law.values(), default=None),
                high=max(by_law.values(), default=None),
                by_law=by_law,
                unusable="" if usable else judge.why_unusable(shape),
                outside=judge.outside(shape),
                notes=notes,
            )
        )
    return found
