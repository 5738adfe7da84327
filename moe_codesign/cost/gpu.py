"""Grade ``modelled``: a GPU's time from the compiled binary's facts and the chip file.

Per GEMM three times run side by side, and the longest nearly decides: the cores' (tiles in waves, each
iteration the longest of matrix work, instruction issue and load latency over the pipeline's depth), HBM's and
the L2's. What is not in a chip file is a constant here, with its source.
"""

from collections.abc import Set
from dataclasses import dataclass

import numpy as np

from moe_codesign.chips import Chip
from moe_codesign.cost.problem import GroupedGemm
from moe_codesign.cost.table import F64, TileTable
from moe_codesign.shape import DTYPE_BYTES, activation_bytes

_OVERLAP = 3.0
"""Exponent of the power mean that joins core, HBM and L2 time (2 to 3 fits measured fused-MoE data)."""
_MATRIX_EFFICIENCY = 0.85
"""Share of peak that the best dense bf16 kernels sustain under power limits (H100: about 0.75 to 0.85 in
published cuBLAS and CUTLASS figures)."""
_LEGACY_MMA_SHARE = 0.63
"""Of peak on chips with warp-group matrix instructions, when a kernel uses warp-level ones instead (Hopper
microbenchmarks, arXiv 2402.13499: mma reaches 62 % of wgmma's rate)."""
EDGE_LATENCIES = 3.0
"""Start and end of a block in units of memory latency: index loads, first tile, result out."""
_BLOCK_RESERVED_BYTES = 1024
"""Shared memory that CUDA keeps for itself in each block (CUDA C++ Programming Guide, compute capability 8 on)."""
LAYER_LAUNCHES = 6
"""Kernels of a layer in the order that measured latencies cover: route, align, GEMM 1, activation, GEMM 2, sum."""
LAUNCH_US = 3.0
"""Per kernel inside a CUDA graph, drain and fill included: a whole fused layer at one token has a measured floor
of 16 to 30 us over six kernels (aiconfigurator-core 0.12.0, H100)."""
_SUSTAINED = 1.35
"""Measured over modelled throughput time, the middle of six (chip, stack) sets; see results/interval_coverage.md.
One number for all chips: a calibration per chip and stack replaces it."""
INTERVAL = (0.6, 2.4)
"""Low and high over the estimate: see results/interval_coverage.md."""


@dataclass(frozen=True)
class TileTimes:
    """Per tile: time and its parts, all in us."""

    total_us: F64
    parts_us: dict[str, F64]


def resident_blocks(table: TileTable) -> F64:
    """Blocks of each tile that one core holds at once."""
    names = ("num_warps", "registers", "shared_bytes", "waves_per_simd")
    blocks = blocks_of_core(table.chip, *(table.columns[name] for name in names))
    if table.chip.target in ("cuda:100", "cuda:103"):
        # tcgen05's accumulators lie in tensor memory: 512 columns of 128 lanes a core (PTX ISA, tensor memory).
        matrices = 2 if table.op == "gate_up" else 1
        columns = table.columns["block_n"] * matrices * np.ceil(table.columns["block_m"] / 128)
        blocks = np.where(table.columns["wide_mma"] > 0, np.clip(512 // columns, 1, blocks), blocks)
    return blocks


def blocks_of_core(chip: Chip, num_warps: F64, registers: F64, shared_bytes: F64, waves_per_simd: F64) -> F64:
    """Blocks that one core holds at once: by registers (or AMD's waves), shared memory, threads, block slots."""
    core = chip.core
    threads = num_warps * (core.warp_size or 32)
    limits = [
        np.full(len(threads), float(core.max_blocks or 32)),
        (core.max_threads or 2048) // threads,
        (core.shared_bytes or 0) // np.maximum(shared_bytes + _BLOCK_RESERVED_BYTES * (chip.vendor == "nvidia"), 1),
    ]
    if core.registers:
        limits.append(core.registers // (np.ceil(np.maximum(registers, 1) / 8) * 8 * threads))
    else:
        simds = core.schedulers or 4
        limits.append(np.floor(np.maximum(waves_per_simd, 1) * simds / num_warps))
    return np.asarray(np.maximum(np.min(limits, axis=0), 1.0))


def tile_times(table: TileTable, gemm: GroupedGemm, ideal: Set[str] = frozenset()) -> TileTimes:
    """Time of one grouped GEMM with every tile of the table.

    Args:
        table: compiled tiles of the GEMM's op.
        gemm: the problem.
        ideal: losses to leave out, for asking what each costs: ``padding``, ``waves``.
    """
    chip, c = table.chip, table.columns
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
    iterations = np.ceil(iterations / splits) if "padding" not in ideal else iterations / splits
    blocks = row_tiles * col_tiles * splits

    resident = resident_blocks(table)
    # A persistent launch starts this many programs on a core, and no more.
    resident = np.where(c["persistent"] > 0, np.minimum(resident, np.maximum(8 // c["num_warps"], 1)), resident)
    fill = blocks / (cores * resident)
    # The last wave is rarely in step with the others: halfway between whole waves and none.
    waves = fill if "waves" in ideal else np.where(fill <= 1.0, 1.0, (np.ceil(fill) + fill) / 2)
    busy = np.clip(blocks / cores, 1.0, resident)

    clock = chip.core.clock_hz or 1e9
    latency_us = (chip.memory.hbm_latency_ns or 500.0) / 1e3
    share = np.where(c["wide_mma"] > 0, 1.0, _LEGACY_MMA_SHARE) if _has_wide_mma(chip) else 1.0
    peak = np.where(c["narrow_mma"] > 0, _peak(chip, gemm.dtype), _peak(chip, "bfloat16"))
    matrix_us = 1e6 * (2.0 * bm * bn * bk * gemm.matrices) / (peak / cores * _MATRIX_EFFICIENCY * share)
    issue_us = 1e6 * c["loop_instructions"] * c["num_warps"] / (chip.core.schedulers or 4) / clock
    load_us = latency_us / np.maximum(c["num_stages"] - 1, 1)
    step_us = np.maximum(busy * np.maximum(matrix_us, issue_us), load_us)
    edge_us = EDGE_LATENCIES * latency_us
    core_us = waves * (iterations * step_us + edge_us)
    # A spilled register is a round trip to L1 in every iteration; such a tile is kept, and priced.
    core_us = core_us * (1.0 + c["spill_bytes"] / 256.0)

    # A column of weights is fetched again for each further band of group_m row tiles unless the L2 kept it.
    bands = np.maximum(row_tiles / max(len(rows), 1) / c["group_m"], 1.0)
    footprint = gemm.k * gemm.n * gemm.matrices * weight_item
    forgotten = 1.0 / (1.0 + ((chip.memory.l3_bytes or chip.memory.l2_bytes or 1.0) / footprint) ** 2)
    weights = gemm.weight_bytes * (1.0 + (bands - 1.0) * forgotten)
    read = gemm.tokens * gemm.k * item if not gemm.accumulates else gemm.total_rows * gemm.k * item
    written = gemm.total_rows * gemm.n * item if not gemm.accumulates else 2 * gemm.tokens * gemm.n * 4.0
    hbm_us = 1e6 * (weights + read + written) / (chip.memory.hbm_bytes_per_s * chip.memory.hbm_efficiency)

    traffic = blocks * iterations * (bm * item + bn * gemm.matrices * weight_item) * bk
    # float32 results of each part: added in place, or written and read again by the activation.
    parts = splits if gemm.accumulates else np.where(splits > 1, splits, 0.0) * gemm.matrices
    traffic = traffic + 2 * parts * gemm.total_rows * gemm.n * 4.0
    l2_us = 1e6 * traffic / (chip.memory.l2_bytes_per_s or chip.memory.hbm_bytes_per_s)

    core_us, hbm_us, l2_us = (_SUSTAINED * part for part in (core_us, hbm_us, l2_us))
    total = (core_us**_OVERLAP + hbm_us**_OVERLAP + l2_us**_OVERLAP) ** (1 / _OVERLAP)
    # Parts of GEMM 1 are summed by a kernel of their own.
    reduce_us = np.where((splits > 1) & (not gemm.accumulates), LAUNCH_US, 0.0)
    total = total + reduce_us
    waiting = busy * np.maximum(matrix_us, issue_us) < load_us
    return TileTimes(
        total,
        {
            "compute": np.where(waiting, 0.0, core_us),
            "latency": np.where(waiting, core_us, 0.0),
            "memory": hbm_us + 0 * total,
            "l2": l2_us + 0 * total,
            "launch": reduce_us,
        },
    )


def _row_tiles(rows: np.ndarray, block_m: F64) -> F64:
    counts = {b: float(np.ceil(rows / b).sum()) for b in np.unique(block_m)}
    return np.array([counts[b] for b in block_m])


def _has_wide_mma(chip: Chip) -> bool:
    return chip.target in ("cuda:90", "cuda:100", "cuda:103")


def _peak(chip: Chip, dtype: str) -> float:
    peak = chip.peak(dtype)
    if peak is None:
        raise ValueError(f"{chip.name} has no {dtype} peak")
    return peak
