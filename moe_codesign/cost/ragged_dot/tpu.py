"""Grouped matmuls as public TPU kernels run them (jax's megablox ``gmm``, PyPI tokamax' first ragged_dot), at a tile.

Their grid is of row tiles that are cut evenly from all rows, so a tile that two groups share is visited by each; every
visit computes the whole tile. Weights are read again where a visit is of another group than the last, or K is cut.
They run on one core.
"""

import numpy as np
import numpy.typing as npt

from moe_codesign.arrays import F64
from moe_codesign.calibrations.ragged_dot import RaggedDotTpuCoefficients
from moe_codesign.chips import TpuChip
from moe_codesign.cost.occupancy import TPU_LAUNCH_US
from moe_codesign.domain.dtype import DTYPE_BYTES
from moe_codesign.domain.grouped_gemm import GroupedGemm


def visits_of(sizes: npt.NDArray[np.int64], tile_m: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Group and row tile of every visit."""
    ends = np.cumsum(sizes)
    starts = ends - sizes
    counts = np.where(sizes > 0, (ends - 1) // tile_m - starts // tile_m + 1, 0)
    group = np.repeat(np.arange(len(sizes)), counts)
    place = np.arange(len(group)) - np.repeat(np.cumsum(counts) - counts, counts)
    return group, starts[group] // tile_m + place


def visit_bytes(gemm: GroupedGemm, tile: tuple[int, int, int]) -> F64:
    """What each visit of one tile of columns (their mean) moves: weights of a new group, rows and results of a new row
    tile."""
    tile_m, tile_k, tile_n = tile
    item, weight_item = 2, DTYPE_BYTES[gemm.dtype]
    group, row_tile = visits_of(gemm.rows.astype(np.int64), tile_m)
    columns = gemm.n / -(-gemm.n // tile_n)
    again = gemm.k > tile_k
    new_rows = np.diff(row_tile, prepend=-1) != 0
    weights = weight_item * gemm.k * columns * ((np.diff(group, prepend=-1) != 0) | again)
    moved = weights + item * tile_m * (gemm.k * (new_rows | again) + columns * new_rows)
    return np.asarray(moved, dtype=np.float64)


def vmem_bytes(gemm: GroupedGemm, tile: tuple[int, int, int]) -> int:
    """Bytes of VMEM that such a kernel holds at least: two blocks of weights and of rows, and a product in float32."""
    tile_m, tile_k, tile_n = (min(pair) for pair in zip(tile, (gemm.total_rows, gemm.k, gemm.n), strict=True))
    return int(2 * tile_k * (DTYPE_BYTES[gemm.dtype] * tile_n + 2 * tile_m) + 4 * tile_m * tile_n)


def time_parts(
    chip: TpuChip, gemm: GroupedGemm, tile: tuple[int, int, int], coefficients: RaggedDotTpuCoefficients
) -> dict[str, float]:
    """Microseconds of one grouped matmul on one core, by what its visits wait for.

    Args:
        chip: a TPU.
        gemm: the problem.
        tile: rows, depth and columns of a step; larger than the problem is cut to it.
        coefficients: of the chip.
    """
    most = (gemm.total_rows, gemm.k, gemm.n)
    tile_m, tile_k, tile_n = (min(pair) for pair in zip(tile, most, strict=True))
    columns, depth = -(-gemm.n // tile_n), -(-gemm.k // tile_k)
    side = chip.core.matrix_side
    products = tile_m * depth * np.ceil(tile_k / side) * side * np.ceil(tile_n / side) * side
    peak = chip.peak("bfloat16") / chip.core.count
    matrix_us = 1e6 * 2.0 * products / (peak * coefficients.matrix_efficiency)
    step_us = matrix_us + depth * coefficients.step_us
    bytes_per_us = 1e-6 * chip.memory.hbm_bytes_per_s / chip.core.count * coefficients.hbm_efficiency
    memory_us = visit_bytes(gemm, (tile_m, tile_k, tile_n)) / bytes_per_us
    bound_by_memory = memory_us > step_us
    return {
        "compute": columns * float(step_us * (~bound_by_memory).sum()),
        "memory": columns * float(memory_us[bound_by_memory].sum()),
        "launch": TPU_LAUNCH_US,
    }
