"""The expert half of an MoE layer in PyTorch, on the Triton grouped GEMM."""

import torch
import triton

from moe_kernels.tile import TritonTile
from moe_kernels.triton.grouped_gemm import down_kernel, gate_up_kernel


def row_tiles(
    group_sizes: torch.Tensor, num_rows: int, block_m: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Which expert and first row each row tile has, without asking the device how many there are.

    Args:
        group_sizes: int32 [E], rows of each expert.
        num_rows: their sum, known on the host.
        block_m: rows of a tile.

    Returns:
        offsets int32 [E + 1]; expert int32 [n] and row int32 [n] of each tile, expert -1 where the static
        bound n exceeds the tiles there are.
    """
    sizes = group_sizes.to(torch.int64)
    ends = torch.cumsum(sizes, 0)
    per_group = (sizes + block_m - 1) // block_m
    until = torch.cumsum(per_group, 0)
    bound = min(num_rows, -(-num_rows // block_m) + sizes.numel())
    index = torch.arange(bound, device=sizes.device)
    expert = torch.searchsorted(until, index, right=True).clamp(max=sizes.numel() - 1)
    row = ends[expert] - sizes[expert] + (index - (until[expert] - per_group[expert])) * block_m
    expert = torch.where(index < until[-1], expert, -1)
    offsets = torch.nn.functional.pad(ends, (1, 0))
    return offsets.to(torch.int32), expert.to(torch.int32), row.to(torch.int32)


def moe_experts(
    x: torch.Tensor,
    w_gate_up: torch.Tensor,
    w_down: torch.Tensor,
    pair_token: torch.Tensor,
    pair_weight: torch.Tensor,
    group_sizes: torch.Tensor,
    *,
    tile_up: TritonTile,
    tile_down: TritonTile,
) -> torch.Tensor:
    """Both GEMMs of the layer over (token, expert) pairs sorted by expert.

    Args:
        x: bfloat16 [T, H].
        w_gate_up: bfloat16 [E, 2 I, H] (SwiGLU) or [E, I, H] (squared ReLU).
        w_down: bfloat16 [E, H, I].
        pair_token: int32 [P] token of each pair.
        pair_weight: float32 [P] router weight of each pair.
        group_sizes: int32 [E], summing to P.

    Returns:
        float32 [T, H].

    Raises:
        ValueError: shapes that do not fit each other.
    """
    num_tokens, hidden_size = x.shape
    num_experts, out_size, width = w_down.shape
    gated = w_gate_up.shape[1] == 2 * width
    if out_size != hidden_size or w_gate_up.shape[2] != hidden_size or w_gate_up.shape[0] != num_experts:
        raise ValueError(f"weights {tuple(w_gate_up.shape)} and {tuple(w_down.shape)} do not fit x {tuple(x.shape)}")
    if not gated and w_gate_up.shape[1] != width:
        raise ValueError(f"w_gate_up has {w_gate_up.shape[1]} rows; give 2 x {width} (gated) or {width}")
    if not all(t.is_contiguous() for t in (x, w_gate_up, w_down)):
        raise ValueError("x, w_gate_up and w_down must be contiguous")
    num_rows = pair_token.numel()
    hidden = torch.empty((num_rows, width), dtype=x.dtype, device=x.device)
    out = torch.zeros((num_tokens, hidden_size), dtype=torch.float32, device=x.device)
    if num_rows == 0:
        return out

    offsets, expert, row = row_tiles(group_sizes, num_rows, tile_up.block_m)
    grid = (expert.numel() * triton.cdiv(width, tile_up.block_n),)
    gate_up_kernel[grid](
        x,
        w_gate_up,
        hidden,
        pair_token,
        offsets,
        expert,
        row,
        expert.numel(),
        tile_up.group_m,
        hidden_size,
        width,
        BLOCK_M=tile_up.block_m,
        BLOCK_N=tile_up.block_n,
        BLOCK_K=tile_up.block_k,
        GATED=gated,
        num_warps=tile_up.num_warps,
        num_stages=tile_up.num_stages,
    )
    if tile_down.block_m != tile_up.block_m:
        offsets, expert, row = row_tiles(group_sizes, num_rows, tile_down.block_m)
    grid = (expert.numel() * triton.cdiv(hidden_size, tile_down.block_n),)
    down_kernel[grid](
        hidden,
        w_down,
        out,
        pair_token,
        pair_weight,
        offsets,
        expert,
        row,
        expert.numel(),
        tile_down.group_m,
        hidden_size,
        width,
        BLOCK_M=tile_down.block_m,
        BLOCK_N=tile_down.block_n,
        BLOCK_K=tile_down.block_k,
        num_warps=tile_down.num_warps,
        num_stages=tile_down.num_stages,
    )
    return out
