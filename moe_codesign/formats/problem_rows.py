"""One problem a row of a table: what its columns mean, whether text or numbers."""

import dataclasses
import functools
import math
from typing import Any

from moe_codesign.domain.routing import DEFAULT_ROUTING, DEFAULT_ROUTING_TEXT, Routing, histograms, parse_routing
from moe_codesign.domain.shape import MoEShape
from moe_codesign.domain.workload import Workload
from moe_codesign.errors import UserError

Row = dict[str, Any]
_MOST = 2**40
_DIGITS = 12
"""Of a number that is surely no larger."""


class BadRow(dict[str, Any]):
    """A row that cannot be read.

    Args:
        reason: why, in a line.
        cells: what of it could be read.
    """

    def __init__(self, reason: str, cells: Row | None = None) -> None:
        super().__init__(cells or {})
        self.reason = reason

    def __reduce__(self) -> tuple[type["BadRow"], tuple[str, Row]]:
        return BadRow, (self.reason, dict(self))


def missing(value: Any) -> bool:
    """Whether a cell is empty: None, an empty text or NaN."""
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def text(row: Row, name: str, default: str | None = None) -> str:
    """A column's text. Raises UserError where it is empty and has no default."""
    value = row.get(name)
    if missing(value):
        if default is None:
            raise UserError(f"column {name} is empty", fix=f"give {name}")
        return default
    return str(value).strip()


def whole(row: Row, name: str, default: int | None = None) -> int:
    """A column's whole number of at least 0. Raises UserError."""
    given = row.get(name)
    if isinstance(given, str) and len(given) <= _DIGITS and given.isascii() and given.isdigit():
        return int(given)  # as nearly every cell of a long table is
    if default is not None and missing(given):
        return default
    value = text(row, name)
    try:
        number = float(value)
        if number != int(number):
            raise ValueError
    except (ValueError, OverflowError):
        raise UserError(name, value=value, fix="give a whole number") from None
    if not 0 <= number <= _MOST:
        raise UserError(name, value=value, fix=f"give a whole number from 0 to {_MOST}")
    return int(number)


def seed_of(row: Row) -> int | None:
    """The column ``seed``; None where it is empty. Raises UserError."""
    return None if missing(row.get("seed")) else whole(row, "seed")


def flag(row: Row, name: str, default: bool) -> bool:
    """A column's true or false. Raises UserError."""
    if missing(row.get(name)):
        return default
    value = text(row, name).lower()
    if value in ("true", "1", "1.0", "yes"):
        return True
    if value in ("false", "0", "0.0", "no"):
        return False
    raise UserError(name, value=row[name], fix="give true or false")


def routing_text(row: Row) -> str:
    """The column ``routing``, or the default routing's text where it is empty."""
    return text(row, "routing", DEFAULT_ROUTING_TEXT)


def routing_of(row: Row) -> Routing:
    """The routing of a row. Raises UserError."""
    named = routing_text(row)
    return DEFAULT_ROUTING if named == DEFAULT_ROUTING_TEXT else parse_routing(named)


def by_layer(row: Row) -> dict[int | None, Row]:
    """The row for each layer of its routing's recorded loads; the row itself, by None, where they are of one layer.

    Raises:
        UserError: the loads cannot be read.
    """
    kind, _, source = routing_text(row).partition(":")
    layers = histograms(source) if kind == "histogram" else {}
    if len(layers) < 2:
        return {None: row}
    return {layer: {**row, "routing": f"histogram:{source}#{layer}"} for layer in layers}


def measured_layer(row: Row, dtype: str) -> tuple[MoEShape, Workload]:
    """The same of a row whose time was measured: it ran one draw of its routing, the first where it names none."""
    shape, workload = layer_of(row, dtype)
    return shape, workload if workload.seed is not None else dataclasses.replace(workload, seed=0)


def layer_of(row: Row, dtype: str) -> tuple[MoEShape, Workload]:
    """Shape and workload of a row. Raises UserError, and what absurd numbers raise."""
    shape = shape_of(row)
    workload = Workload(
        name="row",
        num_tokens=whole(row, "num_tokens"),
        dtype=dtype,
        routing=routing_of(row),
        tp=whole(row, "tp", 1),
        ep=whole(row, "ep", 1),
        seed=seed_of(row),
    )
    return shape, workload


def shape_of(row: Row) -> MoEShape:
    """Shape of a row's layer. Raises UserError, and what absurd numbers raise."""
    return _shape(
        whole(row, "hidden_size"),
        whole(row, "moe_intermediate_size"),
        whole(row, "num_experts"),
        whole(row, "num_experts_per_tok"),
        whole(row, "n_shared_experts", 0),
        flag(row, "gated", True),
    )


@functools.lru_cache(maxsize=4096)
def _shape(hidden: int, width: int, experts: int, top_k: int, shared: int, gated: bool) -> MoEShape:
    """A table's rows are many, its shapes few."""
    return MoEShape(
        hidden_size=hidden,
        moe_intermediate_size=width,
        num_experts=experts,
        num_experts_per_tok=top_k,
        n_shared_experts=shared,
        gated=gated,
    )
