"""Grade ``modelled``: a GPU's time from the compiled binary's facts and the chip file.

Per GEMM four times run side by side, and the longest nearly decides: the cores' (tiles in waves, each iteration the
longest of matrix work, shared memory, instruction issue, fetching and load latency over the pipeline's depth), HBM's,
the L2's, and that of the atomic adds. What is not in a chip file is a coefficient, without units where it scales a
chip's number, so that it can be carried to another chip.
"""

from collections.abc import Set

import numpy as np

from moe_codesign.calibrations.ours import OurCoefficients
from moe_codesign.compiler.tile_table import TileTable
from moe_codesign.cost.ours.gpu_tiles import GpuTiles
from moe_codesign.cost.ours.gpu_work import Work, work_of
from moe_codesign.cost.tile_times import TileTimes
from moe_codesign.domain.grouped_gemm import GroupedGemm
from moe_codesign.domain.grouped_gemms import GroupedGemms

LAYER_LAUNCHES = 4
"""Kernels of a layer beside the GEMMs' own: place, count, the sum's zeros, and the row tokens."""


def tile_times(
    table: TileTable, gemm: GroupedGemm, x: OurCoefficients, ideal: Set[str] = frozenset(), *, dirty: float = 0.0
) -> TileTimes:
    """Time of one grouped GEMM with every tile of the table [tiles], launch included; see :func:`times_of`."""
    tiles, gemms = GpuTiles.of(table, gemm.dtype), GroupedGemms.of([gemm])
    return times_of(tiles, work_of(tiles, gemms, ideal), x, ideal, dirty=dirty).of(0)


def times_of(
    tiles: GpuTiles, w: Work, x: OurCoefficients, ideal: Set[str] = frozenset(), *, dirty: float = 0.0
) -> TileTimes:
    """Times of that work [gemms, tiles], launches included.

    Args:
        tiles, ideal: of :func:`moe_codesign.cost.ours.gpu_work.work_of`.
        w: what it returned.
        x: coefficients.
        dirty: share of the L2 that has to be written back first, as after a flush that writes.
    """
    stages = tiles.columns["num_stages"]
    matrix_us = x.matrix * tiles.matrix_us * np.where(tiles.is_wide > 0, 1.0 + x.alone * tiles.is_alone, x.legacy)
    inside_us = np.maximum(matrix_us, np.maximum(x.shared * tiles.shared_us, x.issue * tiles.issue_us))
    load_us = np.maximum(w.busy * x.fetch * w.fetch_us, x.latency * w.latency_us / np.maximum(stages - 1, 1))
    work_us = w.busy * inside_us
    waves = w.fill if "waves" in ideal else np.where(w.fill <= 1, 1.0, x.waves * (np.ceil(w.fill) - w.fill) + w.fill)
    block_us = w.steps * np.maximum(work_us, load_us) + x.edge * w.latency_us + x.epilogue * tiles.result_us
    # A spilled register is a round trip to L1 in every iteration; such a tile is kept, and priced.
    core_us = waves * block_us * (1.0 + tiles.columns["spill_bytes"] / 256.0)
    hbm_us = x.memory * (w.weight_us + x.reread * w.rereads_us + x.rows * w.rows_us) + dirty * w.dirty_us
    sides = np.stack([core_us, hbm_us, x.l2 * w.l2_us, x.add * w.add_us])
    longest = sides.max(axis=0)
    power = 1.0 + x.overlap
    total = longest * ((sides / longest) ** power).sum(axis=0) ** (1 / power)
    waiting = work_us < load_us
    launch_us = w.reduce_us + x.launch_us
    return TileTimes(
        total + x.launch_us + w.reduce_us,
        {
            "compute": np.where(waiting, 0.0, core_us),
            "latency": np.where(waiting, core_us, 0.0),
            "memory": hbm_us,
            "l2": sides[2],
            "add": sides[3],
            "launch": np.broadcast_to(launch_us, total.shape),
        },
    )
