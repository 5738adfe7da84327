"""What the layer is asked to do: tokens, type, routing, and how the layer is split over chips."""

from dataclasses import dataclass, field

import numpy as np

from moe_codesign.errors import UserError
from moe_codesign.routing import Counts, Routing
from moe_codesign.shape import DTYPE_BYTES, MoEShape


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One batch through one layer.

    Args:
        name: what reports call it ("decode", "prefill").
        num_tokens: tokens in the batch, over all chips.
        dtype: type of weights and activations.
        routing: which experts the tokens choose.
        tp: tensor-parallel ranks (each holds ``moe_intermediate_size / tp`` of every expert).
        ep: expert-parallel ranks (each holds ``num_experts / ep`` experts). The busiest one is timed.
        seed: of the routing's draw.

    Raises:
        UserError: a size below 1 or an unknown dtype.
    """

    name: str
    num_tokens: int
    dtype: str = "bfloat16"
    routing: Routing = field(default_factory=Routing)
    tp: int = 1
    ep: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("num_tokens", "tp", "ep"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UserError(name, value=value, mend="give a whole number of at least 1")
        if self.dtype not in DTYPE_BYTES:
            raise UserError("dtype", value=self.dtype, mend="use one of " + ", ".join(DTYPE_BYTES))

    @property
    def chips(self) -> int:
        """Chips that share the layer."""
        return self.tp * self.ep

    def misfit(self, shape: MoEShape) -> str | None:
        """Why this shape cannot be split so, or None."""
        if shape.moe_intermediate_size % self.tp:
            return f"moe_intermediate_size {shape.moe_intermediate_size} is no multiple of tp {self.tp}"
        if shape.num_experts % self.ep:
            return f"num_experts {shape.num_experts} is no multiple of ep {self.ep}"
        return None


@dataclass(frozen=True)
class RankWork:
    """What one chip does of a layer.

    ``rows`` int64 [local routed experts + shared experts]: token rows of each; ``tokens`` distinct tokens whose
    rows it reads or writes at most, ``fewest_tokens`` at least; ``hidden_size`` H; ``intermediate_size`` I / tp.
    """

    rows: Counts
    tokens: int
    fewest_tokens: int
    hidden_size: int
    intermediate_size: int
    gated: bool
    dtype: str
    routed: int

    @property
    def total_rows(self) -> int:
        return int(self.rows.sum())


def rank_work(shape: MoEShape, workload: Workload) -> RankWork:
    """The busiest rank's share of the layer.

    Shared experts are experts that every token visits; under expert parallelism each rank keeps a copy and
    serves its own ``num_tokens / ep`` tokens with it.

    Raises:
        UserError: the shape cannot be split over ``tp`` or ``ep``.
    """
    if reason := workload.misfit(shape):
        raise UserError(reason, mend="change tp, ep or the shape")
    counts = workload.routing.counts(
        workload.num_tokens, shape.num_experts, shape.num_experts_per_tok, workload.seed, workload.ep
    )
    by_rank = counts.reshape(workload.ep, -1)
    rows = by_rank[int(by_rank.sum(axis=1).argmax())]
    if shape.n_shared_experts:
        own_tokens = -(-workload.num_tokens // workload.ep)
        rows = np.concatenate([rows, np.full(shape.n_shared_experts, own_tokens, dtype=np.int64)])
    return RankWork(
        rows=rows,
        tokens=min(workload.num_tokens, int(rows.sum())),
        # An expert's rows are of different tokens; on one rank every token has one.
        fewest_tokens=workload.num_tokens if workload.ep == 1 else int(rows.max()),
        hidden_size=shape.hidden_size,
        intermediate_size=shape.moe_intermediate_size // workload.tp,
        gated=shape.gated,
        dtype=workload.dtype,
        routed=shape.num_experts // workload.ep,
    )
