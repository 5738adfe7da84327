"""Which header of a table is which of our columns: case, blanks and the spellings of other tools do not matter.

A header that looks like one of our columns and is not read is a warning in every row, never silence.
"""

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass

from moe_codesign.errors import UserError
from moe_codesign.formats.columns import INPUT, OF_OP, OPS, OUTPUT, QUALITY_OUTPUT
from moe_codesign.formats.problem_rows import Row, missing, text
from moe_codesign.formats.spellings import LOOKALIKES, SPELLINGS
from moe_codesign.tables import nearest

_NEAR = 0.8
"""Likeness (difflib) from which on a header looks like a column."""
_READ = {name: name for name in INPUT} | SPELLINGS
_OTHERS = {
    op: {column.name for other in OF_OP.values() for column in other} - {column.name for column in own}
    for op, own in OF_OP.items()
}
"""Columns that problems of an op do not have and others do."""
_ANSWERS = frozenset((*OUTPUT, *QUALITY_OUTPUT)) - _READ.keys()
"""Columns of an answer: a table that was answered before may be asked again."""


@dataclass(frozen=True)
class Headers:
    """The headers of a table.

    Args:
        read: header to the column that it is.
        warnings: one line for each header that looks like a column and is not read.
        are_texts: whether every header is a text.
    """

    read: Mapping[str, str]
    warnings: tuple[str, ...]
    are_texts: bool = True

    @functools.cached_property
    def _is_plain(self) -> bool:
        """Whether no two headers mean the same column."""
        return len(set(self.read.values())) == len(self.read)

    def renamed(self, row: Row) -> Row:
        """The row's cells that are read, by the names of our columns.

        Raises:
            UserError: two cells that mean the same column disagree.
        """
        if self._is_plain:
            return {column: value for header, column in self.read.items() if not missing(value := row.get(header))}
        found: Row = {}
        by: dict[str, str] = {}
        for header, column in self.read.items():
            value = row.get(header)
            if missing(value):
                continue
            if column in found and str(found[column]).strip() != str(value).strip():
                raise UserError(
                    f"columns {by[column]} = {found[column]} and {header} = {value} both mean {column}",
                    fix="keep one of them",
                )
            found[column], by[column] = value, header
        return found


@functools.lru_cache(maxsize=1024)
def headers_of(names: tuple[object, ...]) -> Headers:
    """What the headers of a table are; see the column spellings of docs/predict.md."""
    texts = [name for name in names if isinstance(name, str)]
    read = {name: _READ[plain] for name in texts if (plain := _plain(name)) in _READ}
    others = [name for name in texts if name not in read and _plain(name) not in _ANSWERS]
    near = {name: column for name in others if (column := _nearest(_plain(name))) is not None}
    warnings = tuple(f"column {name.strip()!r} is not read; {column} is" for name, column in near.items())
    return Headers(read, warnings, len(texts) == len(names))


def unused(row: Row) -> tuple[str, ...]:
    """One line where a row gives columns that problems of its op do not have, and says more than their defaults.

    Args:
        row: its cells by our names.
    """
    op = text(row, "op", OPS[0])
    if op not in OF_OP or _OTHERS[op].isdisjoint(row):
        return ()
    own = {column.name for column in OF_OP[op]}
    given = [
        column.name
        for other in OF_OP.values()
        for column in other
        if column.name not in own and not missing(row.get(column.name)) and str(row[column.name]) != column.default
    ]
    return (f"op {op} does not read {', '.join(given)}",) if given else ()


def _nearest(name: str) -> str | None:
    """The column that a header looks like."""
    if name in LOOKALIKES:
        return LOOKALIKES[name]
    near = nearest(name, _READ, likeness=_NEAR)
    return _READ[near] if near else None


def _plain(name: str) -> str:
    return re.sub(r"[\s\-.]+", "_", name.strip().lower())
