"""One rank's share of a layer under a workload."""

from dataclasses import dataclass

import numpy as np

from moe_codesign.domain.dtype import DTYPE_BYTES
from moe_codesign.domain.shape import MoEShape
from moe_codesign.domain.token_counts import Counts, busiest_counts
from moe_codesign.domain.workload import Workload
from moe_codesign.errors import UserError


@dataclass(frozen=True)
class RankWork:
    """What one chip does of a layer.

    ``rows`` int64 [local routed experts + shared experts]: token rows of each; ``tokens`` distinct tokens whose
    rows it reads or writes at most, ``fewest_tokens`` at least; ``hidden_size`` is that of its experts' GEMMs;
    ``intermediate_size`` I / tp.
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
    serves its own ``num_tokens / ep`` tokens with it. Where routed experts work at a latent width, a shared expert,
    which works at the full width, stands as ``hidden_size / moe_latent_size`` experts of the latent width: as many
    FLOPs and weights. The projections to the latent width and back are no more part of the layer than the router is.

    Without a seed the rows are those of a typical draw; see
    :func:`moe_codesign.domain.token_counts.busiest_counts`. Choices of zero experts leave no row.

    Raises:
        UserError: the shape cannot be split over ``tp`` or ``ep``.
    """
    if reason := workload.misfit(shape):
        raise UserError(reason, fix="change tp, ep or the shape")
    rows = busiest_counts(
        workload.routing,
        workload.num_tokens,
        shape.num_experts,
        shape.num_experts_per_tok,
        seed=workload.seed,
        ranks=workload.ep,
        zero_experts=shape.zero_expert_num,
    )
    if shape.n_shared_experts:
        own_tokens = -(-workload.num_tokens // workload.ep)
        shared = shape.n_shared_experts * (shape.hidden_size // shape.expert_hidden_size)
        rows = np.concatenate([rows, np.full(shared, own_tokens, dtype=np.int64)])
    return RankWork(
        rows=rows,
        tokens=min(workload.num_tokens, int(rows.sum())),
        # An expert's rows are of different tokens; on one rank every token has one, if all its choices are experts.
        fewest_tokens=workload.num_tokens if workload.ep == 1 and not shape.zero_expert_num else int(rows.max()),
        hidden_size=shape.expert_hidden_size,
        intermediate_size=shape.moe_intermediate_size // workload.tp,
        gated=shape.gated,
        dtype=workload.dtype,
        routed=shape.num_experts // workload.ep,
    )


def weight_bytes_per_chip(shape: MoEShape, workload: Workload) -> float:
    """Bytes of all the model's MoE layers on one chip.

    Routed experts are split over all chips; shared ones are copied to every expert-parallel rank.
    """
    shared = shape.num_layers * shape.shared_params * DTYPE_BYTES[workload.dtype]
    return (shape.weight_bytes(workload.dtype) - shared) / workload.chips + shared / workload.tp
