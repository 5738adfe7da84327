"""How many thread blocks run on one core at a time, and what a launch costs."""

import numpy as np

from moe_codesign.arrays import F64
from moe_codesign.chips import GpuChip
from moe_codesign.compiler.tile_table import TileTable

_BLOCK_RESERVED_BYTES = 1024
"""Shared memory that CUDA keeps for itself in each block (CUDA C++ Programming Guide, compute capability 8 on)."""
LAUNCH_US = 3.0
"""Per kernel, drain and fill included: 3.1 us for one that does nothing, between two events (results/gpu, H100)."""
TPU_LAUNCH_US = 5.0
"""Start of a program and its metadata: kernels of a layer at decode have a fixed cost of tens of us in
published tokamax timings (35 us at 512 rows); here the part that is neither steps nor bytes."""


def resident_blocks(table: TileTable) -> F64:
    """Blocks of each tile that one core of the table's GPU holds at once."""
    chip = GpuChip.of(table.chip)
    names = ("num_warps", "registers", "shared_bytes", "waves_per_simd")
    blocks = blocks_of_core(chip, *(table.columns[name] for name in names))
    if chip.target in ("cuda:100", "cuda:103"):
        # tcgen05's accumulators lie in tensor memory: 512 columns of 128 lanes a core (PTX ISA, tensor memory).
        matrices = 2 if table.op == "gate_up" else 1
        columns = table.columns["block_n"] * matrices * np.ceil(table.columns["block_m"] / 128)
        blocks = np.where(table.columns["wide_mma"] > 0, np.clip(512 // columns, 1, blocks), blocks)
    return blocks


def blocks_of_core(chip: GpuChip, num_warps: F64, registers: F64, shared_bytes: F64, waves_per_simd: F64) -> F64:
    """Blocks that one core holds at once: by registers (or AMD's waves), shared memory, threads, block slots."""
    core = chip.core
    threads = num_warps * core.warp_size
    limits = [
        np.full(len(threads), float(core.max_blocks)),
        core.max_threads // threads,
        core.shared_bytes // np.maximum(shared_bytes + _BLOCK_RESERVED_BYTES * (chip.vendor == "nvidia"), 1),
    ]
    if chip.vendor == "nvidia":
        limits.append(core.registers // (np.ceil(np.maximum(registers, 1) / 8) * 8 * threads))
    else:
        limits.append(np.floor(np.maximum(waves_per_simd, 1) * core.schedulers / num_warps))
    return np.asarray(np.maximum(np.min(limits, axis=0), 1.0))
