"""Layers under a workload as columns of numbers, one row for each problem."""

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from moe_codesign.arrays import F64
from moe_codesign.domain.question import check_fused
from moe_codesign.domain.routing import Balanced, PowerLaw, Routing
from moe_codesign.domain.shape import MoEShape
from moe_codesign.domain.token_counts import Counts, is_drawn, token_counts, tokens_with
from moe_codesign.domain.workload import Workload
from moe_codesign.stacks.tiles import BLOCK_M

_DRAWS = 5
"""Draws of a random routing whose loads are averaged, as the measured latencies average them."""


@dataclass(frozen=True)
class Columns:
    """Problems as columns, one problem per row; loads are those of the busiest rank, averaged over draws.

    Args:
        num_tokens: tokens of the batch, over all ranks.
        hidden: width of a token.
        width: width of an expert on one rank, after the gate.
        experts: routed experts of the layer.
        local_experts: experts of one rank.
        top_k: experts that a token chooses.
        gated: 1 where experts have a gate, else 0.
        rows: token rows of the rank.
        active: experts of the rank that have rows.
        largest: rows of the rank's fullest expert.
        entering: tokens with an expert on the rank.
        row_tiles: tiles of rows, for each height of BLOCK_M in that order.
    """

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
    return columns_from(problems, [loads_of(shape, work) for shape, work in problems])


def columns_from(problems: Sequence[tuple[MoEShape, Workload]], loads: Sequence["Loads"]) -> Columns:
    """Columns of problems whose loads are counted already; see :func:`loads_of`."""

    def column(values: Iterable[float]) -> F64:
        return np.fromiter(values, dtype=float, count=len(problems))

    return Columns(
        num_tokens=column(work.num_tokens for _, work in problems),
        hidden=column(shape.expert_hidden_size for shape, _ in problems),
        width=column(shape.moe_intermediate_size // work.tp for shape, work in problems),
        experts=column(shape.num_experts for shape, _ in problems),
        local_experts=column(shape.num_experts // work.ep for shape, work in problems),
        top_k=column(shape.num_experts_per_tok for shape, _ in problems),
        gated=column(shape.gated for shape, _ in problems),
        rows=column(load.rows for load in loads),
        active=column(load.active for load in loads),
        largest=column(load.largest for load in loads),
        entering=column(load.entering for load in loads),
        row_tiles=tuple(column(load.row_tiles[i] for load in loads) for i in range(len(BLOCK_M))),
    )


@dataclass(frozen=True)
class Loads:
    """The columns of one problem that its routing decides; see :class:`Columns`."""

    rows: float
    active: float
    largest: float
    entering: float
    row_tiles: tuple[float, ...]


def loads_of(shape: MoEShape, work: Workload) -> Loads:
    """Loads of one problem's busiest rank.

    Raises:
        UserError: a shape that cannot be split so, or that has shared experts.
    """
    check_fused(shape, work)
    return _loads(
        work.routing,
        work.num_tokens,
        experts=shape.num_experts,
        top_k=shape.num_experts_per_tok,
        ranks=work.ep,
        seed=work.seed,
    )


@functools.lru_cache(maxsize=2**16)
def _loads(routing: Routing, tokens: int, *, experts: int, top_k: int, ranks: int, seed: int) -> Loads:
    """Loads of the busiest rank, mean of the draws."""
    drawn = []
    for draw in range(_DRAWS if is_drawn(routing) else 1):
        by_rank = token_counts(routing, tokens, experts, top_k, seed + draw, ranks).reshape(ranks, -1)
        busiest = int(by_rank.sum(axis=1).argmax())
        counts = by_rank[busiest]
        drawn.append(
            Loads(
                rows=float(counts.sum()),
                active=float((counts > 0).sum()),
                largest=float(counts.max()),
                entering=_entering(routing, by_rank, busiest, tokens, top_k),
                row_tiles=tuple(float((-(-counts // height)).sum()) for height in BLOCK_M),
            )
        )
    return Loads(
        rows=float(np.mean([one.rows for one in drawn])),
        active=float(np.mean([one.active for one in drawn])),
        largest=float(np.mean([one.largest for one in drawn])),
        entering=float(np.mean([one.entering for one in drawn])),
        row_tiles=tuple(np.mean([one.row_tiles for one in drawn], axis=0).tolist()),
    )


def _entering(routing: Routing, by_rank: Counts, rank: int, tokens: int, k: int) -> float:
    """Tokens with an expert on the rank: exact for power laws and balanced choices; for others as if a token drew its
    distinct experts with the rank's share of all rows."""
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
