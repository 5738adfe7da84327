"""Grade ``simulated``: a TPU's time from the compiler's own static cycles of the compiled kernel.

The probes gave cycles per visit and per step of one column tile. A problem causes so many visits, each so many
steps deep; cycles over one constant per generation are nanoseconds. The static profile guesses whether a block
is fetched again, so the bytes that the group sizes really move set a floor.

A chip's cores share out the column tiles; where each core is a device of its own (tpu7x) that means splitting the
columns over the chip's devices.
"""

from collections.abc import Set

import numpy as np

from moe_codesign.cost.gpu import TileTimes
from moe_codesign.cost.problem import GroupedGemm
from moe_codesign.cost.table import F64, TileTable
from moe_codesign.shape import DTYPE_BYTES

_IDLE_STEP_US = 0.35
"""A grid step that does nothing (JAX documentation, "Pallas TPU pipelining": about 0.35 us of overhead a step)."""
LAUNCH_US = 5.0
"""Start of a program and its metadata: kernels of a layer at decode have a fixed cost of tens of us in
published tokamax timings (35 us at 512 rows); here the part that is neither steps nor bytes."""
INTERVAL = (0.7, 1.7)
"""Low and high over the estimate: see results/interval_coverage.md."""
RAGGED_DEPTH = 1.45
"""Widening of high where K is no multiple of tile_k: masking is not in the probes, and published K = 2880
timings are up to 45 % slower than unmasked cycles say."""


def tile_times(table: TileTable, gemm: GroupedGemm, ideal: Set[str] = frozenset()) -> TileTimes:
    """Time of one grouped GEMM with every tile of the table; see :func:`moe_codesign.cost.gpu.tile_times`."""
    chip, c = table.chip, table.columns
    cores = float(chip.core.count)
    total_rows = float(gemm.total_rows)
    tm = np.minimum(c["tile_m"], max(total_rows, 1.0))
    tk, tn = np.minimum(c["tile_k"], gemm.k), np.minimum(c["tile_n"], gemm.n)
    depth, columns = np.ceil(gemm.k / tk), np.ceil(gemm.n / tn)
    row_tiles = np.ceil(total_rows / tm)
    visits = _visits(gemm.rows, tm)
    bound = np.maximum(row_tiles + min(len(gemm.rows), total_rows) - 1, 1.0)
    idle_steps = np.maximum(bound - visits, 0.0) * depth

    cycles = np.where(depth == 1, c["visit_cycles"], c["edge_cycles"] + depth * c["step_cycles"])
    useful = np.ones_like(cycles)
    if "padding" in ideal:
        useful = total_rows / (visits * tm) * (gemm.k / (depth * tk)) * (gemm.n / (columns * tn))
    per_core = columns / cores
    if "waves" in ideal:
        idle_steps = 0 * idle_steps
    else:
        per_core = np.ceil(per_core)
    clock = (chip.core.profile_cycles_per_ns or 1.0) * 1e3
    step_us = useful * visits * per_core * cycles / clock
    idle_us = idle_steps * per_core * _IDLE_STEP_US
    start_us = c["prologue_cycles"] / clock

    item = DTYPE_BYTES[gemm.dtype]
    resident = depth == 1  # one depth tile: a group's weights stay in VMEM over its visits
    weight_reads = np.where(resident, gemm.active_groups, visits)
    row_reads = np.where(resident, row_tiles, visits) * tm * columns
    moved = weight_reads * gemm.k * gemm.n * gemm.matrices * item
    moved = moved + row_reads * gemm.k * item + total_rows * gemm.n * item
    memory_us = 1e6 * moved / chip.memory.hbm_bytes_per_s
    total = np.maximum(step_us, memory_us) + idle_us + start_us
    return TileTimes(
        total,
        {
            "compute": np.where(step_us >= memory_us, step_us, 0.0),
            "memory": np.where(step_us >= memory_us, 0.0, memory_us),
            "idle steps": idle_us,
            "launch": start_us,
        },
    )


def _visits(rows: np.ndarray, tile_m: F64) -> F64:
    """Overlaps of groups and row tiles, for each tile."""
    ends = np.cumsum(rows)
    starts = ends - rows
    some = rows > 0
    counts = {
        m: float(((ends[some] - 1) // m - starts[some] // m + 1).sum()) if some.any() else 1.0
        for m in np.unique(tile_m)
    }
    return np.array([counts[m] for m in tile_m])
