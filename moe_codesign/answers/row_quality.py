"""The columns of quality of a problem table's rows."""

from collections.abc import Iterable

from moe_codesign.cost.estimate import ABSURD
from moe_codesign.domain.shape import MoEShape
from moe_codesign.errors import UserError
from moe_codesign.formats.columns import OPS, QUALITY_OUTPUT
from moe_codesign.formats.problem_rows import Row, shape_of, text, whole
from moe_codesign.quality import Beside, Judge, beside

_MOST_KEPT = 100_000
"""Shapes whose quality is remembered; a table's rows are many, its shapes few."""


class RowQuality:
    """Says the quality of rows' shapes beside one reference.

    Args:
        judge: of quality.
    """

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._known: dict[MoEShape, Row] = {}

    def columns(self, rows: Iterable[Row | None]) -> list[Row]:
        """The columns of each row; a row that cannot be read (None) has empty ones."""
        shapes = [self._shape(row) for row in rows]
        if len(self._known) > _MOST_KEPT:
            self._known.clear()
        new = list(dict.fromkeys(one for one in shapes if isinstance(one, MoEShape) and one not in self._known))
        self._known |= {
            shape: self._cells(shape, found) for shape, found in zip(new, beside(self._judge, new), strict=True)
        }
        return [self._known[one] if isinstance(one, MoEShape) else _nothing(one) for one in shapes]

    def _shape(self, row: Row | None) -> MoEShape | str:
        """The shape that is judged, or why there is none."""
        if row is None:
            return ""
        if (op := text(row, "op", OPS[0])) != "fused_moe":
            return f"op {op} has no layer whose quality could be judged"
        try:
            layers = whole(row, "num_layers", self._judge.reference.num_layers)
            return shape_of(row).replaced(num_layers=layers)
        except (UserError, *ABSURD) as error:
            return str(error)

    def _cells(self, shape: MoEShape, found: Beside) -> Row:
        notes = [f"no ratio by {found.law}: {found.unusable}"] if found.unusable else []
        if found.outside:
            notes.append(f"outside of {found.law}'s experiments: {', '.join(found.outside)}")
        if (theirs := self._judge.reference.n_shared_experts) and not shape.n_shared_experts:
            notes.append(f"the row has no shared experts, and {found.reference} has {theirs}")
        values = (_rounded(found.ratio), _rounded(found.low), _rounded(found.high), found.by_law_text, "; ".join(notes))
        return dict(zip(QUALITY_OUTPUT, values, strict=True))


def _rounded(ratio: float | None) -> float | None:
    return None if ratio is None else round(ratio, 4)


def _nothing(why: str) -> Row:
    return {**dict.fromkeys(QUALITY_OUTPUT), QUALITY_OUTPUT[-1]: why}
