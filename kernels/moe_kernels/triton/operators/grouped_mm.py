"""The grouped matmul by itself as an operator: rows in group order times each group's weights, with gradients."""

import dataclasses
from typing import Any

import torch

from moe_kernels.tile import TritonTile
from moe_kernels.triton.alignment import align_groups
from moe_kernels.triton.device import target_of
from moe_kernels.triton.launch import launch_gemm, problem_of
from moe_kernels.triton.layer import backward_tile
from moe_kernels.triton.operators.packing import pack_tiles, unpack_tiles
from moe_kernels.triton.tiles import default_tile
from moe_kernels.triton.weight_gradient import weight_gradient


@torch.library.custom_op("moe_kernels::grouped_gemm", mutates_args=())
def _grouped_gemm(
    rows: torch.Tensor, weights: torch.Tensor, group_sizes: torch.Tensor, tile: list[int]
) -> torch.Tensor:
    if tile:
        (one,) = unpack_tiles(tile)
    else:
        per_group = rows.shape[0] / max(weights.shape[0], 1)
        one = default_tile(problem_of("down", weights, 1), per_group, target_of(rows.device))
    # Each row is written once, so there is no place where parts of K could be summed.
    one = dataclasses.replace(one, split_k=1)
    out = torch.zeros((rows.shape[0], weights.shape[1]), dtype=rows.dtype, device=rows.device)
    if group_sizes.device.type == "cpu":
        _check_sizes(group_sizes, rows.shape[0])
    if rows.shape[0]:
        order = torch.arange(rows.shape[0], dtype=torch.int32, device=rows.device)
        aligned = align_groups(group_sizes, order, (one.block_m, one.block_m))
        launch_gemm(rows, weights, out, aligned, one, gather=False, epilogue="hidden")
    return out


def _check_sizes(group_sizes: torch.Tensor, num_rows: int) -> None:
    total, least = int(group_sizes.sum()), int(group_sizes.min()) if group_sizes.numel() else 0
    if total > num_rows or least < 0:
        raise ValueError(
            f"group_sizes sum to {total}, the least is {least}; give sizes of 0 or more that sum to at most the "
            f"{num_rows} rows"
        )


@_grouped_gemm.register_fake
def _(rows: torch.Tensor, weights: torch.Tensor, *_rest: Any) -> torch.Tensor:
    return rows.new_empty((rows.shape[0], weights.shape[1]))


@torch.library.custom_op("moe_kernels::grouped_gemm_backward", mutates_args=())
def _grouped_gemm_backward(
    d_out: torch.Tensor, rows: torch.Tensor, weights: torch.Tensor, group_sizes: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    d_rows, tile = torch.zeros_like(rows), backward_tile(rows.dtype)
    if not rows.shape[0]:
        return d_rows, torch.zeros_like(weights)
    order = torch.arange(rows.shape[0], dtype=torch.int32, device=rows.device)
    aligned = align_groups(group_sizes, order, (tile.block_m,) * 2)
    launch_gemm(d_out, weights, d_rows, aligned, tile, gather=False, epilogue="hidden", transposed=True)
    return d_rows, weight_gradient(d_out, rows, order, aligned.start, gather_left=True)


@_grouped_gemm_backward.register_fake
def _(_d: Any, rows: torch.Tensor, weights: torch.Tensor, *_rest: Any) -> Any:
    return torch.empty_like(rows), torch.empty_like(weights)


def _save_gemm(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    ctx.save_for_backward(*inputs[:3])


def _gemm_backward(ctx: Any, d_out: torch.Tensor) -> tuple[Any, ...]:
    d_rows, d_weights = torch.ops.moe_kernels.grouped_gemm_backward(d_out.contiguous(), *ctx.saved_tensors)
    return d_rows, d_weights, None, None


_grouped_gemm.register_autograd(_gemm_backward, setup_context=_save_gemm)


def grouped_mm(
    rows: torch.Tensor, weights: torch.Tensor, group_sizes: torch.Tensor, *, tile: TritonTile | None = None
) -> torch.Tensor:
    """Multiply each group's rows by its own weights: [M, N], differentiable in rows and weights.

    Args:
        rows: [M, K] in group order.
        weights: [G, N, K] in the type of rows.
        group_sizes: int [G]; rows past their sum come out as zeros. Where the host has them, sizes that are negative or
            sum to more than M are an error. Those on a GPU are not looked at, which would stop the host: negative ones
            count as zero, and the last groups are cut to the rows that there are.
        tile: by default the default rule's.

    Raises:
        ValueError: shapes or types do not fit, or the tile cannot run this problem here.
    """
    if rows.dim() != 2 or weights.dim() != 3 or rows.shape[1] != weights.shape[2] or rows.dtype != weights.dtype:
        raise ValueError(
            f"rows {tuple(rows.shape)} {rows.dtype} and weights {tuple(weights.shape)} {weights.dtype} do not fit: "
            "give [M, K] and [G, N, K] of one type"
        )
    if tuple(group_sizes.shape) != (weights.shape[0],) or group_sizes.is_floating_point():
        raise ValueError(
            f"group_sizes {tuple(group_sizes.shape)} {group_sizes.dtype} should be whole numbers {(weights.shape[0],)}"
        )
    for name, tensor in (("weights", weights), ("group_sizes", group_sizes)):
        if tensor.device != rows.device:
            raise ValueError(f"{name} is on {tensor.device} and rows are on {rows.device}; move one")
    numbers = pack_tiles([tile] if tile else [])
    return torch.ops.moe_kernels.grouped_gemm(rows.contiguous(), weights.contiguous(), group_sizes, numbers)
