"""The work of a grouped GEMM with each compiled tile of a GPU, as columns."""

from collections.abc import Set
from dataclasses import dataclass

import numpy as np

from moe_codesign.arrays import F64
from moe_codesign.chips import GpuChip
from moe_codesign.compiler.tile_table import TileTable
from moe_codesign.cost.occupancy import LAUNCH_US, resident_blocks
from moe_codesign.domain.dtype import DTYPE_BYTES, activation_bytes
from moe_codesign.domain.grouped_gemm import GroupedGemm

_SHARED_BYTES_PER_CYCLE = 128.0
"""What a core reads of its shared memory: 32 banks of 4 bytes (CUDA C++ Programming Guide)."""


@dataclass(frozen=True)
class Work:
    """What the coefficients are multiplied with, per tile. Times are at the chip file's rates, in us.

    ``rereads_us``: weights once more per further band of row tiles, where the L2 forgot them. ``dirty_us``: what the L2
    has to write back first, if all of it was written just before.
    """

    fill: F64
    steps: F64
    busy: F64
    stages: F64
    matrix_us: F64
    is_wide: F64
    is_alone: F64
    issue_us: F64
    shared_us: F64
    fetch_us: F64
    latency_us: float
    result_us: F64
    spilled: F64
    weight_us: F64
    rereads_us: F64
    rows_us: F64
    dirty_us: F64
    l2_us: F64
    add_us: F64
    reduce_us: F64


def work_of(table: TileTable, gemm: GroupedGemm, ideal: Set[str] = frozenset()) -> Work:
    """Everything of the model that does not depend on coefficients.

    Args:
        table: compiled tiles of the GEMM's op.
        gemm: the problem.
        ideal: losses to leave out, for asking what each costs: ``padding``, ``waves``.
    """
    chip, c = GpuChip.of(table.chip), table.columns
    cores = float(chip.core.count)
    bm, bn, bk = c["block_m"], c["block_n"], c["block_k"]
    weight_item, item = DTYPE_BYTES[gemm.dtype], activation_bytes(gemm.dtype)
    rows = gemm.rows[gemm.rows > 0]
    if "padding" in ideal:
        row_tiles, col_tiles, iterations = rows.sum() / bm, gemm.n / bn, gemm.k / bk
    else:
        row_tiles = _row_tiles(rows, bm)
        col_tiles, iterations = np.ceil(gemm.n / bn), np.ceil(gemm.k / bk)
    # No more parts than there are steps of K.
    splits = np.minimum(c["split_k"], np.maximum(iterations, 1.0))
    steps = np.ceil(iterations / splits) if "padding" not in ideal else iterations / splits
    blocks = row_tiles * col_tiles * splits
    resident = resident_blocks(table)
    # A persistent launch starts this many programs on a core, and no more.
    resident = np.where(c["persistent"] > 0, np.minimum(resident, np.maximum(8 // c["num_warps"], 1)), resident)

    clock = chip.core.clock_hz
    peak = np.where(c["narrow_mma"] > 0, chip.peak(gemm.dtype), chip.peak("bfloat16"))
    width = bn * gemm.matrices
    wide = c["wide_mma"]
    groups = np.maximum(c["num_warps"] / 4, 1.0)
    # Rows of a group that an expert does not have are not fetched, but by a descriptor, which knows of no experts.
    by_descriptor = (c["tma"] > 0) & (c["swap_ab"] == 0) & (gemm.op == "down")
    fetched_rows = np.where(by_descriptor, row_tiles * bm, float(rows.sum()))
    per_core = 1e-6 * chip.memory.l2_bytes_per_s / cores
    bandwidth = 1e-6 * chip.memory.hbm_bytes_per_s * chip.memory.hbm_efficiency
    # A column of weights is fetched again for each further band of group_m row tiles unless the L2 kept it.
    bands = np.maximum(row_tiles / max(len(rows), 1) / c["group_m"], 1.0) - 1.0
    forgotten = 1.0 / (1.0 + (chip.memory.last_level_bytes / (gemm.k * gemm.n * gemm.matrices * weight_item)) ** 2)
    read = (gemm.total_rows if gemm.accumulates else gemm.tokens) * gemm.k * item
    written = 4.0 * gemm.tokens * gemm.n if gemm.accumulates else item * gemm.total_rows * gemm.n
    adds = splits * gemm.total_rows * gemm.n if gemm.accumulates else 0.0 * splits
    # float32 results of each part of GEMM 1: written, and read again by the kernel that sums them.
    is_summed = (splits > 1) & (not gemm.accumulates)
    parts = np.where(is_summed, 2.0 * splits * gemm.matrices * gemm.total_rows * gemm.n, 0.0)
    one = np.ones(len(bm))
    return Work(
        fill=blocks / (cores * resident),
        steps=steps,
        busy=np.clip(blocks / cores, 1.0, resident),
        stages=c["num_stages"],
        matrix_us=1e6 * 2.0 * bm * bn * bk * gemm.matrices / (peak / cores),
        is_wide=wide if _has_wide_mma(chip) else one,
        # On Blackwell one thread issues the matrix instructions of the whole block.
        is_alone=wide * (groups <= 1) * (chip.target == "cuda:90"),
        issue_us=1e6 * c["loop_instructions"] * c["num_warps"] / chip.core.schedulers / clock,
        # Elsewhere instructions have other shapes, and nothing was fitted.
        shared_us=(chip.target == "cuda:90")
        * 1e6
        * _shared_bytes(c, width, groups, item)
        / (_SHARED_BYTES_PER_CYCLE * clock),
        fetch_us=bk
        * (np.minimum(fetched_rows / np.maximum(row_tiles, 1e-9), bm) * item + width * weight_item)
        / per_core,
        latency_us=chip.memory.hbm_latency_ns / 1e3,
        result_us=bm * width * 4.0 / per_core,
        spilled=c["spill_bytes"],
        weight_us=gemm.weight_bytes / bandwidth * one,
        rereads_us=gemm.weight_bytes * bands * forgotten / bandwidth,
        rows_us=(read + written) / bandwidth * one,
        dirty_us=np.minimum(gemm.weight_bytes + read, chip.memory.l2_bytes) / bandwidth * one,
        l2_us=(fetched_rows * col_tiles * gemm.k * item + blocks * steps * bk * width * weight_item)
        / (per_core * cores),
        add_us=4.0 * (adds + parts) / (per_core * cores),
        # Parts of GEMM 1 are summed by a kernel of their own.
        reduce_us=np.where(is_summed, LAUNCH_US, 0.0),
    )


def _shared_bytes(c: dict[str, F64], width: F64, groups: F64, item: float) -> F64:
    """What a step's matrix instructions read of shared memory, on Hopper.

    Wide ones read both operands: 64 rows of one, up to 256 of the other, 16 (or 32 bytes) of K; groups of warps lie
    along the first while it has 64 rows for each. Warp-level ones are fed from registers, into which each warp loads
    its 16 rows of one and its share of the other.
    """
    swapped = c["swap_ab"] > 0
    first, second = np.where(swapped, width, c["block_m"]), np.where(swapped, c["block_m"], width)
    along = np.minimum(groups, np.maximum(first / 64, 1.0))
    reach = np.clip(second / (groups / along), 8.0, 256.0)
    wide = np.ceil(first / 64) * np.ceil(second / reach) * (64 + reach)
    warps_along = np.minimum(c["num_warps"], np.maximum(first / 16, 1.0))
    warp_level = c["num_warps"] / warps_along * first + warps_along * second
    return np.asarray(np.where(c["wide_mma"] > 0, wide, warp_level) * c["block_k"] * item)


def _row_tiles(rows: np.ndarray, block_m: F64) -> F64:
    counts = {b: float(np.ceil(rows / b).sum()) for b in np.unique(block_m)}
    return np.array([counts[b] for b in block_m])


def _has_wide_mma(chip: GpuChip) -> bool:
    return chip.target in ("cuda:90", "cuda:100", "cuda:103")
