"""Layers under a workload as columns of numbers, one row for each problem."""

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moe_codesign.arrays import F64
from moe_codesign.cost.estimate import ABSURD
from moe_codesign.domain.question import check_fused
from moe_codesign.domain.routing import Balanced, PowerLaw, Routing, Uniform
from moe_codesign.domain.shape import MoEShape
from moe_codesign.domain.token_counts import DRAWS, Counts, is_drawn, token_counts, tokens_with
from moe_codesign.domain.uniform_loads import expected_loads
from moe_codesign.domain.workload import Workload
from moe_codesign.errors import UserError
from moe_codesign.stacks.tiles import BLOCK_M

Problem = tuple[MoEShape, Workload]
_Loads = tuple[float, ...]
"""Rows, active experts, the largest's rows, entering tokens and row tiles of one problem; see :class:`Columns`."""


@dataclass(frozen=True)
class Columns:
    """Problems as columns, one problem per row; loads are those of the busiest rank in the mean: of a uniform
    routing without a seed over all draws, of others over some.

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


def columns_of(problems: Sequence[Problem]) -> Columns:
    """Columns of problems, shared experts left out: no stack's fused operation has them.

    Args:
        problems: shape and workload of each row.

    Raises:
        UserError: a shape that cannot be split so, or that has shared experts.
    """
    for shape, work in problems:
        check_fused(shape, work)
    columns, failed = columns_and_failures(problems)
    for error in failed.values():
        raise error
    return columns


def columns_and_failures(problems: Sequence[Problem]) -> tuple[Columns, dict[int, Exception]]:
    """Columns of problems that :func:`moe_codesign.domain.question.check_fused` takes.

    Returns:
        Columns of those whose rows could be counted, in their order, and by its place why another one's could not.
    """
    drawn: dict[int, _Loads] = {}
    failed: dict[int, Exception] = {}
    for place, (shape, work) in enumerate(problems):
        if work.seed is None and isinstance(work.routing, Uniform):
            continue
        try:
            drawn[place] = _drawn_loads(
                work.routing,
                work.num_tokens,
                experts=shape.num_experts,
                top_k=shape.num_experts_per_tok,
                ranks=work.ep,
                seed=work.seed,
            )
        except (UserError, *ABSURD) as error:
            failed[place] = error
    places = [place for place in range(len(problems)) if place not in failed]
    sizes = np.array([_sizes(*problems[place]) for place in places], dtype=float).reshape(-1, 8).T
    num_tokens, hidden, width, experts, local_experts, top_k, gated, ranks = sizes
    loads = np.empty((4 + len(BLOCK_M), len(places)))
    known = np.array([place in drawn for place in places], dtype=bool)
    if known.any():
        loads[:, known] = np.array(list(drawn.values())).T
    if not known.all():
        loads[:, ~known] = _expected_loads(*(values[~known] for values in (num_tokens, experts, top_k, ranks)))
    rows, active, largest, entering, *tiles = loads
    columns = Columns(
        num_tokens=num_tokens,
        hidden=hidden,
        width=width,
        experts=experts,
        local_experts=local_experts,
        top_k=top_k,
        gated=gated,
        rows=rows,
        active=active,
        largest=largest,
        entering=entering,
        row_tiles=tuple(tiles),
    )
    return columns, failed


def _sizes(shape: MoEShape, work: Workload) -> tuple[int, ...]:
    experts = shape.num_experts
    return (
        work.num_tokens,
        shape.expert_hidden_size,
        shape.moe_intermediate_size // work.tp,
        experts,
        experts // work.ep,
        shape.num_experts_per_tok,
        shape.gated,
        work.ep,
    )


def _expected_loads(num_tokens: F64, experts: F64, top_k: F64, ranks: F64) -> F64:
    """[loads, problems] of a uniform routing, loads in the order of :data:`_Loads`."""
    found = expected_loads(num_tokens, experts, top_k, ranks, heights=BLOCK_M)
    entering = entering_tokens(found.rows, found.largest, num_tokens, experts, top_k)
    entering = np.where(ranks == 1, num_tokens, entering)
    return np.stack([found.rows, found.active, found.largest, entering, *found.row_tiles])


@functools.lru_cache(maxsize=2**16)
def _drawn_loads(routing: Routing, tokens: int, *, experts: int, top_k: int, ranks: int, seed: int | None) -> _Loads:
    """Loads of the busiest rank, mean of the draws of a random routing from that seed on."""
    first = 0 if seed is None else seed
    drawn = []
    for draw in range(first, first + (DRAWS if is_drawn(routing) else 1)):
        by_rank = token_counts(routing, tokens, experts, top_k, draw, ranks).reshape(ranks, -1)
        busiest = int(by_rank.sum(axis=1).argmax())
        counts = by_rank[busiest]
        tiles = [(-(-counts // height)).sum() for height in BLOCK_M]
        entering = _entering(routing, by_rank, busiest, tokens, top_k)
        drawn.append((counts.sum(), (counts > 0).sum(), counts.max(), entering, *tiles))
    return tuple(np.mean(np.array(drawn, dtype=float), axis=0).tolist())


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
    one = (np.array([float(size)]) for size in (rows, counts.max(), tokens, by_rank.size, k))
    return float(entering_tokens(*one)[0])


def entering_tokens(rows: F64, largest: F64, tokens: F64, experts: F64, top_k: F64) -> F64:
    """Tokens with an expert on the rank, as if a token drew its distinct experts with the rank's share of all rows."""
    own = rows / (tokens * top_k) * experts
    none = np.ones(len(rows))
    for taken in range(int(top_k.max(initial=0))):
        chance = np.maximum(1 - own / np.maximum(experts - taken, 1), 0.0)
        none *= np.where(taken < top_k, chance, 1.0)
    least = np.maximum(rows / top_k, largest)
    return np.asarray(np.clip(tokens * (1 - none), least, np.minimum(tokens, rows)))


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
