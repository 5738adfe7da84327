"""Launches of the grouped GEMM: from tensors and a tile to the kernel's arguments."""

import functools
from dataclasses import replace
from typing import Any, TypeAlias

import torch
import triton
from triton.runtime.errors import OutOfResources
from triton.tools.tensor_descriptor import TensorDescriptor

from moe_kernels.kernel import Op, Problem, up_op
from moe_kernels.tile import TritonTile
from moe_kernels.triton.alignment import Alignment
from moe_kernels.triton.device import cores_of, launching_on, target_of
from moe_kernels.triton.formats import FORMATS, MX_GROUP
from moe_kernels.triton.grouped_gemm.kernel import grouped_gemm_kernel
from moe_kernels.triton.quantize import QuantizedWeights
from moe_kernels.triton.support import refusal

Weights: TypeAlias = "torch.Tensor | QuantizedWeights"

_DESCRIPTOR_BYTES = 16
"""A tensor that a descriptor describes begins at a multiple of so many bytes (CUDA, ``cuTensorMapEncodeTiled``)."""


@functools.cache
def _checked(problem: Problem, tile: TritonTile, target: str | None) -> None:
    if reason := refusal(problem, tile, target):
        raise ValueError(f"tile {tile.label()} of {problem.op}: {reason}")


def dtype_name(weights: Weights) -> str:
    """The name of the weights' data type in :mod:`moe_kernels.triton.formats`.

    Raises:
        ValueError: no kernel takes weights of this torch type.
    """
    if isinstance(weights, QuantizedWeights):
        return weights.dtype
    name = str(weights.dtype).removeprefix("torch.")
    if name not in FORMATS or not weights.dtype.is_floating_point:
        raise ValueError(f"weights are {weights.dtype}; use bfloat16, float16 or QuantizedWeights")
    return name


def problem_of(op: Op, weights: Weights, matrices: int) -> Problem:
    """The problem that a GEMM with these weights [experts, matrices * N, K] is."""
    group = weights.group if isinstance(weights, QuantizedWeights) else 128
    return Problem(op=op, dtype=dtype_name(weights), k=weights.shape[2], n=weights.shape[1] // matrices, group=group)


def launch_gemm(
    a: torch.Tensor,
    weights: Weights,
    out: torch.Tensor,
    rows: Alignment,
    tile: TritonTile,
    *,
    gather: bool,
    epilogue: str,
    a_scale: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    row_weight: torch.Tensor | None = None,
    activation: str = "none",
    alpha: float = 0.0,
    limit: float = 0.0,
    matrices: int = 1,
    transposed: bool = False,
) -> None:
    """Run the grouped GEMM.

    Args:
        a: token rows if ``gather``, else rows in expert order, [rows, K].
        weights: [experts, matrices * N, K]; if ``transposed`` [experts, K, N], of 16 bits or more.
        out: the result, in the shape that ``epilogue`` asks for.
        rows: which rows belong to which expert.
        tile: the tile. One with ``tma`` reads by pointers where ``a`` or ``weights`` begins at no multiple of 16 bytes.
        gather, epilogue, activation, alpha, limit, matrices, transposed: compile-time switches and numbers of
            :func:`moe_kernels.triton.grouped_gemm.kernel.grouped_gemm_kernel`.
        a_scale: scales of quantised rows.
        bias: [experts, matrices * N].
        row_weight: float32 weight of each slot, by which results are multiplied.

    Raises:
        ValueError: the tile cannot run this problem on this device; the text says why.
    """
    values = weights.values if isinstance(weights, QuantizedWeights) else weights
    scale = weights.scale if isinstance(weights, QuantizedWeights) else None
    op = up_op(gated=matrices == 2) if gather else "down"
    problem = problem_of(op, weights, matrices)
    k, n = problem.k, problem.n
    assert k is not None
    assert n is not None
    if transposed:
        k, n = weights.shape[1], weights.shape[2]
        problem = Problem(op=op, dtype=problem.dtype, k=k, n=n)
        if tile.tma or tile.swap_ab:
            raise ValueError(f"tile {tile.label()}: weights that are read along N take neither tma nor swap_ab")
    _checked(problem, tile, target_of(a.device))
    if tile.tma and any(t.data_ptr() % _DESCRIPTOR_BYTES for t in (a, values)):
        # A view into a larger buffer may begin anywhere. The same tile reads it by pointers, without a copy.
        tile = replace(tile, tma=False)
    tiles = rows.tiles[tile.block_m]
    packed = FORMATS[problem.dtype].packed
    if transposed:
        stride_expert, stride_matrix, stride_row = n * k, 0, n
    else:
        stride_row = k // packed
        stride_matrix, stride_expert = n * stride_row, matrices * n * stride_row
    a_argument: Any = a
    w_argument: Any = values
    if tile.tma:
        w_argument = TensorDescriptor(
            values,
            [values.shape[0], n, matrices, stride_row],
            [stride_expert, stride_row, stride_matrix if matrices == 2 else stride_row, 1],
            [1, tile.block_n, matrices, tile.block_k // packed],
        )
        if not gather and not tile.swap_ab:
            a_argument = TensorDescriptor(a, list(a.shape), [k, 1], [tile.block_m, tile.block_k])
    programs = tiles.bound * triton.cdiv(n, tile.block_n)
    if tile.persistent:
        programs = min(programs, cores_of(a.device) * max(1, 8 // tile.num_warps))
    try:
        with launching_on(a.device):
            grouped_gemm_kernel[(programs, tile.split_k)](
                a_argument,
                w_argument,
                out,
                a_scale,
                scale,
                bias,
                rows.token,
                rows.slot,
                row_weight,
                tiles.expert,
                tiles.row,
                tiles.end,
                tiles.count,
                rows.slot.numel(),
                tile.group_m,
                k,
                n,
                stride_expert,
                stride_matrix,
                stride_row,
                alpha,
                limit,
                BLOCK_M=tile.block_m,
                BLOCK_N=tile.block_n,
                BLOCK_K=tile.block_k,
                FORMAT=problem.dtype,
                MATRICES=matrices,
                GATHER=gather,
                EPILOGUE=epilogue,
                ACTIVATION=activation,
                EVEN_K=k % tile.block_k == 0,
                TRANSPOSED=transposed,
                TMA=tile.tma,
                SWAP_AB=tile.swap_ab,
                W_GROUP=MX_GROUP if problem.dtype == "mxfp4" else problem.group,
                PERSISTENT=tile.persistent,
                **tile.compile_options(),
            )
    except OutOfResources as error:
        raise ValueError(
            f"tile {tile.label()} of {problem.op}: needs {error.required} of {error.name}, this device has "
            f"{error.limit}; use smaller blocks or fewer stages"
        ) from None
