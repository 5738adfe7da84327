"""The grouped matmul by itself, as torch's grouped_mm and JAX's ragged_dot have it: rows in expert order, one matrix, a
row out for each row in.

The same code as the layer's GEMM 2 (grouped_gemm.py), compiled to write rows instead of adding them up by token.
"""

import dataclasses
from pathlib import Path
from typing import Any

from moe_kernels.kernel import Op
from moe_kernels.tile import TritonTile
from moe_kernels.triton import ahead_of_time, grouped_gemm


def _build(op: Op, tile: TritonTile, dtype: str, target: str) -> tuple[Any, dict[str, Any]]:
    return ahead_of_time.source(grouped_gemm.grouped_gemm_kernel, op, tile, dtype, target, epilogue="rows")


KERNEL = dataclasses.replace(
    grouped_gemm.KERNEL,
    name="triton.grouped_matmul",
    sources=(*grouped_gemm.KERNEL.sources, Path(__file__)),
    build=_build,
)
