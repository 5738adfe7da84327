"""The gradient of a grouped GEMM's weights: for each expert, its rows of one operand times those of the other."""

from dataclasses import replace

import torch
import triton
import triton.language as tl

from moe_kernels.tile import TritonTile
from moe_kernels.triton.device import launching_on


@triton.jit
def weight_gradient_kernel(
    left_ptr,
    right_ptr,
    out_ptr,
    token_ptr,
    start_ptr,
    N,
    K,
    group_m,
    GATHER_LEFT: tl.constexpr,
    GATHER_RIGHT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    dtype: tl.constexpr,
):
    """out [experts, N, K] = left.T @ right over the expert's rows, of left [., N] and right [., K].

    An operand that is gathered is indexed by token, the other by row. The grid is (tiles of [N, K], experts), and
    BLOCK_M rows are taken at a time. Experts without rows write zeros.
    """
    expert = tl.program_id(1).to(tl.int64)
    tiles_n, tiles_k = tl.cdiv(N, BLOCK_N), tl.cdiv(K, BLOCK_K)
    in_band = group_m * tiles_k
    first = (tl.program_id(0) // in_band) * group_m
    height = min(tiles_n - first, group_m)
    n = (first + (tl.program_id(0) % in_band) % height) * BLOCK_N + tl.arange(0, BLOCK_N)
    k = (tl.program_id(0) % in_band) // height * BLOCK_K + tl.arange(0, BLOCK_K)
    n_ok, k_ok = n < N, k < K
    end = tl.load(start_ptr + expert + 1)
    acc = tl.zeros((BLOCK_N, BLOCK_K), dtype=dtype)
    for start in range(tl.load(start_ptr + expert), end, BLOCK_M):
        rows = start + tl.arange(0, BLOCK_M)
        ok = rows < end
        left_rows = rows.to(tl.int64)
        right_rows = left_rows
        if GATHER_LEFT:
            left_rows = tl.load(token_ptr + rows, mask=ok, other=0).to(tl.int64)
        if GATHER_RIGHT:
            right_rows = tl.load(token_ptr + rows, mask=ok, other=0).to(tl.int64)
        left = tl.load(left_ptr + left_rows[:, None] * N + n[None, :], mask=ok[:, None] & n_ok[None, :], other=0.0)
        right = tl.load(right_ptr + right_rows[:, None] * K + k[None, :], mask=ok[:, None] & k_ok[None, :], other=0.0)
        acc = tl.dot(tl.trans(left), right, acc, input_precision="ieee", out_dtype=dtype)
    to = out_ptr + expert * N * K + n.to(tl.int64)[:, None] * K + k[None, :]
    tl.store(to, acc.to(out_ptr.dtype.element_ty), mask=n_ok[:, None] & k_ok[None, :])


TILE = TritonTile(block_m=64, block_n=128, block_k=128, num_warps=8, num_stages=3, group_m=8)
"""Rows are the depth here: 64 of them per step, and 128 x 128 of the weights per program."""


def weight_gradient(
    left: torch.Tensor,
    right: torch.Tensor,
    token: torch.Tensor,
    start: torch.Tensor,
    *,
    gather_left: bool,
    tile: TritonTile | None = None,
) -> torch.Tensor:
    """The gradient of the weights, [experts, N, K] in the type of the operands.

    Args:
        left: [tokens, N] if ``gather_left``, else [rows, N].
        right: [rows, K] if ``gather_left``, else [tokens, K].
        token: int32 [rows], the token of each row.
        start: int32 [experts + 1], the first row of each expert.
        gather_left: whether left or right is indexed by token.
        tile: by default :data:`TILE`, or half of it where elements are wider than 16 bits.
    """
    # Wide types take half the columns: CDNA 3 has 64 KB of shared memory.
    tile = tile or (replace(TILE, block_m=32, block_n=64, block_k=64) if left.dtype.itemsize > 2 else TILE)
    n, k, experts = left.shape[1], right.shape[1], start.numel() - 1
    out = torch.empty((experts, n, k), dtype=left.dtype, device=left.device)
    grid = (triton.cdiv(n, tile.block_n) * triton.cdiv(k, tile.block_k), experts)
    with launching_on(left.device):
        weight_gradient_kernel[grid](
            left, right, out, token, start, n, k, tile.group_m,
            GATHER_LEFT=gather_left, GATHER_RIGHT=not gather_left,
            BLOCK_M=tile.block_m, BLOCK_N=tile.block_n, BLOCK_K=tile.block_k,
            dtype=tl.float64 if left.dtype == torch.float64 else tl.float32,
            **tile.compile_options(),
        )  # fmt: skip
    return out
