"""One rank's share of a layer under a workload."""

from dataclasses import dataclass

import numpy as np

from moe_codesign.domain.dtype import DTYPE_BYTES
from moe_codesign.domain.shape import MoEShape
from moe_codesign.domain.token_counts import Counts, busiest_counts
from moe_codesign.domain.workload import Workload
from moe_codesign.errors import UserError

_ACTIVATION_BYTES = 2


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


@dataclass(frozen=True)
class MemoryUse:
    """Bytes that a model's MoE layers take of one chip's memory.

    Attention, its cache, dense layers and what a runtime keeps for itself are not in it.

    Args:
        weights: of all MoE layers.
        activations: of one layer at a time, on the mean of the ranks.
    """

    weights: float
    activations: float

    @property
    def total(self) -> float:
        """Both together."""
        return self.weights + self.activations

    def __str__(self) -> str:
        return f"{_gb(self.weights)} of weights + {_gb(self.activations)} of activations = {_gb(self.total)}"


def _gb(data_bytes: float) -> str:
    gb = data_bytes / 1e9
    return f"{gb:.0f} GB" if gb >= 100 else f"{gb:.3g} GB"


def memory_use(shape: MoEShape, workload: Workload) -> MemoryUse:
    """What the model's MoE layers take of each chip under a workload."""
    return MemoryUse(weight_bytes_per_chip(shape, workload), activation_bytes_per_chip(shape, workload))


def weight_bytes_per_chip(shape: MoEShape, workload: Workload) -> float:
    """Bytes of all the model's MoE layers on one chip.

    Routed experts are split over all chips; shared ones are copied to every expert-parallel rank.
    """
    # Asked for every row of a long table.
    shared = shape.shared_params if shape.n_shared_experts else 0
    per_rank = (shape.layer_params - shared) / workload.ep + shared
    return shape.num_layers * per_rank * DTYPE_BYTES[workload.dtype] / workload.tp


def activation_bytes_per_chip(shape: MoEShape, workload: Workload) -> float:
    """Bytes of the rows that one layer holds at a time on one chip, on the mean of the ranks, in 16 bits each.

    They are the tokens as they come and as they go, and for each token and expert its row in expert order, what GEMM 1
    and the activation make of it, and what GEMM 2 gives.
    """
    hidden = shape.hidden_size
    between = shape.projections * shape.moe_intermediate_size / workload.tp
    values = 2 * hidden + shape.choices_of_experts * (2 * shape.expert_hidden_size + between)
    values += shape.n_shared_experts * (2 * hidden + between)
    return _ACTIVATION_BYTES * workload.num_tokens / workload.ep * values
