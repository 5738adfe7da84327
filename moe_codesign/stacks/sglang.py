"""SGLang: the tile of its fused MoE kernel where no tuned file matches (SGLang 0.5.23, CUDA)."""

import numpy as np

from moe_codesign.arrays import F64
from moe_codesign.stacks.tiles import StackTiles


def default_tiles(dtype: str, num_tokens: F64, local_experts: F64) -> StackTiles:
    """The tile of each row; see :data:`moe_codesign.stacks.DefaultRule`."""
    one = np.ones_like(num_tokens)
    if dtype == "fp8_block":
        return StackTiles(
            block_m=64 * one, block_n=128 * one, block_k=128 * one, group_m=32 * one, num_warps=4 * one,
            num_stages=3 * one,
        )  # fmt: skip
    few = num_tokens <= local_experts
    return StackTiles(
        block_m=np.where(few, 16.0, 64.0),
        block_n=np.where(few, 32.0, 64.0),
        block_k=np.where(few, 64.0, 32.0),
        group_m=np.where(few, 1.0, 8.0),
        num_warps=4 * one,
        num_stages=3 * one,
    )
