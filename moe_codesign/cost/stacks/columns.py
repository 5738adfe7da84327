"""Layers under a workload as columns of numbers, one row for each problem."""

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moe_codesign.arrays import F64
from moe_codesign.domain.routing import Balanced, PowerLaw, Routing
from moe_codesign.domain.shape import MoEShape
from moe_codesign.domain.token_counts import Counts, is_drawn, token_counts, tokens_with
from moe_codesign.domain.workload import Workload
from moe_codesign.errors import UserError
from moe_codesign.formats.tuned_files import BLOCK_M

_DRAWS = 5
"""Draws of a random routing whose loads are averaged, as the measured latencies average them."""


@dataclass(frozen=True)
class Columns:
    """One problem a row. ``rows``, ``active``, ``largest``: token rows, experts with rows, rows of the fullest;
    ``entering``: tokens with an expert on the rank."""

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
    entering: F64
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

    def take(self, index: np.ndarray | slice) -> "Columns":
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
    table = np.empty((len(problems), 11 + len(BLOCK_M)))
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
        raise UserError(reason, fix="change tp, ep or the shape")
    if shape.n_shared_experts:
        raise UserError(
            "n_shared_experts", value=shape.n_shared_experts, fix="a stack runs them apart from its fused op; give 0"
        )


@functools.lru_cache(maxsize=2**16)
def _loads(routing: Routing, tokens: int, experts: int, k: int, ranks: int, seed: int) -> tuple[float, ...]:
    """Of the busiest rank, mean of the draws: Columns from ``rows`` on."""
    found = []
    for draw in range(_DRAWS if is_drawn(routing) else 1):
        by_rank = token_counts(routing, tokens, experts, k, seed + draw, ranks).reshape(ranks, -1)
        busiest = int(by_rank.sum(axis=1).argmax())
        counts = by_rank[busiest]
        tiles = [float((-(-counts // height)).sum()) for height in BLOCK_M]
        entering = _entering(routing, by_rank, busiest, tokens, k)
        found.append([float(counts.sum()), float((counts > 0).sum()), float(counts.max()), entering, *tiles])
    return tuple(np.mean(found, axis=0).tolist())


def _entering(routing: Routing, by_rank: Counts, rank: int, tokens: int, k: int) -> float:
    """Tokens with an expert on the rank. Exact of power laws and of balanced choices; of others as if a token drew its
    distinct experts with the rank's share of them."""
    counts = by_rank[rank]
    rows = float(counts.sum())
    if len(by_rank) == 1:
        return float(tokens)
    if isinstance(routing, Balanced) and not routing.is_limited:
        # A token's choices are dealt over the experts in even steps, so over the ranks too.
        return min(float(tokens), rows)
    if isinstance(routing, PowerLaw) and not routing.is_limited:
        first = rank * len(counts)
        return float(tokens_with(by_rank.ravel(), slice(first, first + len(counts)), tokens))
    own = rows / (tokens * k) * by_rank.size
    none = np.prod(np.maximum(1 - own / (by_rank.size - np.arange(k)), 0.0))
    return float(np.clip(tokens * (1 - none), max(rows / k, float(counts.max())), min(float(tokens), rows)))


def with_others_on_first(columns: Columns) -> Columns:
    """The same ranks if tokens without an expert there did not enter, and the choices of those that do which belong to
    other ranks all ran on the first expert. An expert so gets a token several times."""
    c = columns
    rows = c.entering * c.top_k
    others = np.maximum(rows - c.rows, 0)
    # Where the first expert had no rows of its own, one more has rows, and its last tile is half full in the mean.
    opened = np.where(others > 0, 1 - c.active / c.local_experts, 0.0)
    tiles = [t + others / h + opened / 2 for h, t in zip(BLOCK_M, c.row_tiles, strict=True)]
    active = c.active + opened
    return Columns(
        num_tokens=c.entering,
        hidden=c.hidden,
        width=c.width,
        experts=c.local_experts,
        local_experts=c.local_experts,
        top_k=c.top_k,
        gated=c.gated,
        rows=rows,
        active=active,
        largest=np.maximum(c.largest, others + c.rows / c.local_experts),
        entering=c.entering,
        row_tiles=tuple(np.maximum(t, active) for t in tiles),
    )
