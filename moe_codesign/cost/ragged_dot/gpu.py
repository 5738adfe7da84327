"""Grouped matmuls as public Triton kernels run them (PyPI tokamax' ragged_dot), at a given tile.

They differ from ours in two ways that cost time: each program finds its group by walking the groups' sizes, one
dependent load after the other, and the rows of all groups pass before the next column of tiles, so that rows are read
again for every column unless the L2 kept them.
"""

import numpy as np

from moe_codesign.calibrations.ragged_dot import RaggedDotGpuCoefficients
from moe_codesign.chips import GpuChip
from moe_codesign.compiler.tile_table import TileTable
from moe_codesign.cost.occupancy import LAUNCH_US, resident_blocks
from moe_codesign.cost.tile_times import TileTimes
from moe_codesign.domain.dtype import DTYPE_BYTES, activation_bytes
from moe_codesign.domain.grouped_gemm import GroupedGemm

KERNEL = "triton.grouped_matmul"
"""Whose binaries stand for theirs: the same loop, compiled by the same compiler."""
_EDGE_LATENCIES = 3.0
"""Start and end of a block in units of memory latency: index loads, first tile, result out."""
_OVERLAP = 4.0
"""Exponent of the norm that joins core, L2 and HBM time: 4 fits best of 1.5, 2, 3 and 4. And of a step's work and
loads, where 2 to 8 fit alike: a deeper pipeline helps a little, as measured, of which a maximum knows nothing."""


def tile_times(table: TileTable, gemm: GroupedGemm, coefficients: RaggedDotGpuCoefficients) -> TileTimes:
    """Time of one grouped matmul with every tile of the table, launch included."""
    chip, c = GpuChip.of(table.chip), table.columns
    cores = float(chip.core.count)
    item, weight_item = activation_bytes(gemm.dtype), DTYPE_BYTES[gemm.dtype]
    bm, bn, bk = c["block_m"], c["block_n"], c["block_k"]
    rows = gemm.rows[gemm.rows > 0]
    row_tiles = np.array([np.ceil(rows / size).sum() for size in bm])
    col_tiles, steps = np.ceil(gemm.n / bn), np.ceil(gemm.k / bk)
    tiles = row_tiles * col_tiles

    resident = resident_blocks(table)
    fill = tiles / (cores * resident)
    waves = np.where(fill <= 1.0, 1.0, (np.ceil(fill) + fill) / 2)
    busy = np.clip(tiles / cores, 1.0, resident)
    latency_us = chip.memory.hbm_latency_ns / 1e3
    matrix_us = 1e6 * 2.0 * bm * bn * bk / (chip.peak(gemm.dtype) / cores * coefficients.matrix_efficiency)
    issue_us = 1e6 * c["loop_instructions"] * c["num_warps"] / chip.core.schedulers / chip.core.clock_hz
    load_us = latency_us / np.maximum(c["num_stages"] - 1, 1)
    work_us = busy * np.maximum(matrix_us, issue_us)
    step_us = (work_us**_OVERLAP + load_us**_OVERLAP) ** (1 / _OVERLAP)
    walk_us = waves * coefficients.walk_us_per_group * len(gemm.rows)
    core_us = waves * (steps * step_us + _EDGE_LATENCIES * latency_us) + walk_us

    read = gemm.total_rows * gemm.k * item
    written = gemm.total_rows * gemm.n * item
    traffic = tiles * steps * (bm * item + bn * weight_item) * bk + written
    l2_us = 1e6 * traffic / chip.memory.l2_bytes_per_s
    again = 1.0 / (1.0 + coefficients.rows_kept * chip.memory.l2_bytes / read)
    moved = gemm.weight_bytes + written + read * (1.0 + (col_tiles - 1.0) * again)
    hbm_us = 1e6 * moved / (chip.memory.hbm_bytes_per_s * chip.memory.hbm_efficiency)

    total = (core_us**_OVERLAP + l2_us**_OVERLAP + hbm_us**_OVERLAP) ** (1 / _OVERLAP)
    parts = {"compute": core_us - walk_us, "walk over groups": walk_us, "memory": hbm_us, "l2": l2_us}
    launch = np.full(len(table), LAUNCH_US)
    return TileTimes(total + launch, parts | {"launch": launch})
