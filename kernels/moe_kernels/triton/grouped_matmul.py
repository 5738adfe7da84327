"""The grouped matmul by itself, as torch's grouped_mm and JAX's ragged_dot have it: rows in expert order, one matrix, a
row out for each row in.

The same code as the layer's GEMM 2 (:mod:`moe_kernels.triton.grouped_gemm`), compiled to write rows instead of adding
them up by token. This file is its declaration and imports no compiler.
"""

import dataclasses
from pathlib import Path
from typing import Any

from moe_kernels.kernel import Op, Problem
from moe_kernels.tile import TritonTile
from moe_kernels.triton.grouped_gemm.declaration import KERNEL as GROUPED_GEMM


def _build(op: Op, tile: TritonTile, dtype: str, target: str) -> tuple[Any, dict[str, Any]]:
    from moe_kernels.triton.ahead_of_time import source
    from moe_kernels.triton.grouped_gemm.kernel import grouped_gemm_kernel

    return source(grouped_gemm_kernel, op, tile, dtype, target, epilogue="rows")


def _refuses(problem: Problem, tile: TritonTile, target: str | None = None) -> str | None:
    if problem.op != "down":
        return f"op = {problem.op}: this kernel multiplies rows in expert order by one matrix; use {GROUPED_GEMM.name}"
    return GROUPED_GEMM.refuses(problem, tile, target)


KERNEL = dataclasses.replace(
    GROUPED_GEMM,
    name="triton.grouped_matmul",
    ops=("down",),
    refuses=_refuses,
    sources=(*GROUPED_GEMM.sources, Path(__file__)),
    build=_build,
)
