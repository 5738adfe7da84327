"""vLLM: the tile of its fused MoE kernel where no tuned file matches (vLLM 0.33.0, CUDA)."""

import numpy as np

from moe_codesign.arrays import F64
from moe_codesign.stacks.tiles import StackTiles, by_tokens


def default_tiles(dtype: str, num_tokens: F64, local_experts: F64) -> StackTiles:
    """The tile of each row; see :data:`moe_codesign.stacks.DefaultRule`."""
    m = num_tokens
    one = np.ones_like(m)
    if dtype == "fp8_block":
        return StackTiles(
            block_m=by_tokens(m, (64, 16), last=64),
            block_n=by_tokens(m, (8, 64), last=128),
            block_k=128 * one,
            group_m=by_tokens(m, (16, 1), last=32),
            num_warps=4 * one,
            num_stages=by_tokens(m, (4, 4), last=3),
        )
    return StackTiles(
        block_m=by_tokens(m, (32, 16), (96, 32), (512, 64), last=128),
        block_n=by_tokens(m, (64, 64), last=128),
        block_k=128 * one if dtype == "fp8" else by_tokens(m, (64, 128), last=64),
        group_m=np.where(m // local_experts > 128, 16.0, 1.0),
        num_warps=by_tokens(m, (128, 4), last=8),
        num_stages=by_tokens(m, (32, 4), last=3),
    )
