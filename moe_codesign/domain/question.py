"""What can be asked of a cost model: how long something takes, and by whose software."""

from dataclasses import dataclass

from moe_codesign.domain.dtype import SCALE_BLOCK
from moe_codesign.domain.grouped_gemm import GroupedGemm
from moe_codesign.domain.shape import MoEShape
from moe_codesign.domain.tile_pair import TilePair
from moe_codesign.domain.workload import Workload
from moe_codesign.errors import UserError
from moe_kernels.tile import TileConfig


@dataclass(frozen=True, kw_only=True)
class OurLayer:
    """A layer by our kernels.

    Args:
        shape: of the layer.
        workload: the batch and its split.
        tiles: of both GEMMs; None asks for the fastest.
        kernel: its name; None asks for the chip's default kernel.
    """

    shape: MoEShape
    workload: Workload
    tiles: TilePair | None = None
    kernel: str | None = None


@dataclass(frozen=True, kw_only=True)
class OurGemm:
    """One grouped GEMM by our kernels; ``tile`` and ``kernel`` as for :class:`OurLayer`."""

    gemm: GroupedGemm
    tile: TileConfig | None = None
    kernel: str | None = None


@dataclass(frozen=True, kw_only=True)
class StackLayer:
    """A layer by a serving stack's fused operation, at the tiles that the stack chooses.

    Args:
        stack: ``vllm`` or ``sglang``.
        shape: of the layer, without shared experts.
        workload: the batch and its split.

    Raises:
        UserError: the shape cannot be split so, or has shared experts.
    """

    stack: str
    shape: MoEShape
    workload: Workload

    def __post_init__(self) -> None:
        check_fused(self.shape, self.workload)


@dataclass(frozen=True, kw_only=True)
class RaggedDot:
    """One grouped GEMM by a public ragged_dot kernel at that tile."""

    gemm: GroupedGemm
    tile: TileConfig


Question = OurLayer | OurGemm | StackLayer | RaggedDot
"""One question; which model answers it is known to :func:`moe_codesign.cost.model_for.model_for` alone."""


def check_fused(shape: MoEShape, workload: Workload) -> None:
    """Raise UserError for a layer that no stack's fused operation runs.

    That is one which cannot be split so, whose experts' width on a rank is not made of whole scale blocks (vLLM and
    SGLang refuse to load it, also on one rank), or which has shared or zero experts.
    """
    if reason := workload.misfit(shape):
        raise UserError(reason, fix="change tp, ep or the shape")
    width, block = shape.moe_intermediate_size // workload.tp, SCALE_BLOCK.get(workload.dtype, 1)
    if width % block:
        raise UserError(
            f"moe_intermediate_size / tp = {width} is not a multiple of {workload.dtype}'s scale block of {block}",
            fix="vLLM and SGLang refuse to load it; change tp or the shape",
        )
    if shape.n_shared_experts:
        raise UserError(
            "n_shared_experts", value=shape.n_shared_experts, fix="a stack runs them apart from its fused op; give 0"
        )
    if shape.zero_expert_num:
        raise UserError(
            "zero_expert_num", value=shape.zero_expert_num, fix="no stack was timed with zero experts; give 0"
        )
