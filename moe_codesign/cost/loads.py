"""Problems as columns: sizes of a rank's layer, and how its token rows fall on its experts."""

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moe_codesign.cost.stacks import BLOCK_M
from moe_codesign.cost.table import F64
from moe_codesign.errors import UserError
from moe_codesign.routing import Routing
from moe_codesign.shape import MoEShape
from moe_codesign.workload import Workload

_DRAWS = 5
"""Draws of a random routing whose loads are averaged, as the measured latencies average them."""


@dataclass(frozen=True)
class Columns:
    """One problem a row. ``rows``, ``active``, ``largest``: token rows, experts with rows, rows of the fullest."""

    num_tokens: F64
    hidden: F64
    width: F64
    experts: F64
    local_experts: F64
    top_k: F64
    gated: F64
    rows: F64
    active: F64
    largest: F64
    row_tiles: tuple[F64, ...]
    """By height, in the order of BLOCK_M."""

    def __len__(self) -> int:
        return len(self.num_tokens)

    def replaced(self, rows: np.ndarray, other: "Columns") -> "Columns":
        """These problems, and in those rows the other's."""

        def put(mine: F64, theirs: F64) -> F64:
            found = np.array(mine, dtype=float)
            found[rows] = theirs
            return found

        names = [f.name for f in dataclasses.fields(self) if f.name != "row_tiles"]
        return Columns(
            **{name: put(getattr(self, name), getattr(other, name)) for name in names},
            row_tiles=tuple(map(put, self.row_tiles, other.row_tiles)),
        )

    def take(self, index: np.ndarray) -> "Columns":
        """These rows."""
        parts = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        tiles = tuple(column[index] for column in parts.pop("row_tiles"))
        return Columns(**{name: column[index] for name, column in parts.items()}, row_tiles=tiles)

    @property
    def up_width(self) -> F64:
        """Columns of GEMM 1's result."""
        return np.where(self.gated > 0, 2 * self.width, self.width)


def columns_of(problems: Sequence[tuple[MoEShape, Workload]]) -> Columns:
    """Columns of problems, shared experts left out: no stack's fused operation has them.

    Args:
        problems: shape and workload of each row.

    Raises:
        UserError: a shape that cannot be split so, or that has shared experts.
    """
    table = np.empty((len(problems), 10 + len(BLOCK_M)))
    for i, (shape, work) in enumerate(problems):
        check(shape, work)
        local = shape.num_experts // work.ep
        table[i] = (
            *(work.num_tokens, shape.hidden_size, shape.moe_intermediate_size // work.tp, shape.num_experts, local),
            *(shape.num_experts_per_tok, shape.gated),
            *_loads(
                work.routing,
                work.num_tokens,
                shape.num_experts,
                shape.num_experts_per_tok,
                work.ep,
                work.seed,
            ),
        )
    names = [field.name for field in dataclasses.fields(Columns) if field.name != "row_tiles"]
    numbers = dict(zip(names, table.T, strict=False))
    return Columns(**numbers, row_tiles=tuple(table.T[len(names) :]))


def check(shape: MoEShape, work: Workload) -> None:
    """Raise UserError for a shape that cannot be split so, or that has shared experts."""
    if reason := work.misfit(shape):
        raise UserError(reason, mend="change tp, ep or the shape")
    if shape.n_shared_experts:
        raise UserError(
            "n_shared_experts", value=shape.n_shared_experts, mend="a stack runs them apart from its fused op; give 0"
        )


@functools.lru_cache(maxsize=2**16)
def _loads(routing: Routing, tokens: int, experts: int, k: int, ranks: int, seed: int) -> tuple[float, ...]:
    """Of the busiest rank, mean of the draws: Columns from ``rows`` on."""
    found = []
    for draw in range(_DRAWS if routing.kind in ("uniform", "zipf", "power_law") else 1):
        by_rank = routing.counts(tokens, experts, k, seed + draw).reshape(ranks, -1)
        counts = by_rank[int(by_rank.sum(axis=1).argmax())]
        tiles = [float((-(-counts // height)).sum()) for height in BLOCK_M]
        found.append([float(counts.sum()), float((counts > 0).sum()), float(counts.max()), *tiles])
    return tuple(np.mean(found, axis=0).tolist())


def with_all_choices_here(columns: Columns) -> Columns:
    """The same ranks if tokens without an expert there did not enter, and those that do ran all their choices there.

    A token's choices are taken to lie on different ranks while there are enough of them, as the balanced rule deals
    them. An expert may get a token several times: ranks of one expert were timed with all of a token's choices too.
    Tiles of the fuller experts are read between the heights that are known: c rows in tiles of h are as many tiles as
    f c rows in tiles of f h.
    """
    c = columns
    entering = np.minimum(c.num_tokens, c.rows)
    rows = entering * c.top_k
    factor = rows / np.maximum(c.rows, 1e-9)
    heights = np.log(np.array([1.0, 4.0, *BLOCK_M]))
    # Tiles beyond what the rows fill: none of one row; of four, experts end anywhere in their last one.
    beyond = np.stack(
        [0 * c.active, 3 / 8 * c.active, *(t - c.rows / h for t, h in zip(c.row_tiles, BLOCK_M, strict=True))]
    )
    tiles = []
    for height in BLOCK_M:
        own = np.log(np.maximum(height / factor, 1.0))
        low = np.clip(np.searchsorted(heights, own) - 1, 0, len(heights) - 2)
        along = np.clip((own - heights[low]) / (heights[low + 1] - heights[low]), 0.0, 1.0)
        row = np.arange(len(c))
        more = beyond[low, row] * (1 - along) + beyond[low + 1, row] * along
        tiles.append(np.maximum(rows / height + more, c.active))
    return Columns(
        num_tokens=entering,
        hidden=c.hidden,
        width=c.width,
        experts=c.local_experts,
        local_experts=c.local_experts,
        top_k=c.top_k,
        gated=c.gated,
        rows=rows,
        active=c.active,
        largest=c.largest * factor,
        row_tiles=tuple(tiles),
    )
