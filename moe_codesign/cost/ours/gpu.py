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
from moe_codesign.cost.ours.gpu_work import Work, work_of
from moe_codesign.cost.tile_times import TileTimes
from moe_codesign.domain.grouped_gemm import GroupedGemm

LAYER_LAUNCHES = 4
"""Kernels of a layer beside the GEMMs' own: place, count, the sum's zeros, and the row tokens."""


def tile_times(
    table: TileTable, gemm: GroupedGemm, x: OurCoefficients, ideal: Set[str] = frozenset(), *, dirty: float = 0.0
) -> TileTimes:
    """Time of one grouped GEMM with every tile of the table, launch included; see :func:`work_of`, :func:`times_of`."""
    return times_of(work_of(table, gemm, ideal), x, ideal, dirty=dirty)


def times_of(w: Work, x: OurCoefficients, ideal: Set[str] = frozenset(), *, dirty: float = 0.0) -> TileTimes:
    """Time of that work, launch included.

    Args:
        w, ideal: of :func:`work_of`.
        x: coefficients.
        dirty: share of the L2 that has to be written back first, as after a flush that writes.
    """
    matrix_us = x.matrix * w.matrix_us * np.where(w.is_wide > 0, 1.0 + x.alone * w.is_alone, x.legacy)
    load_us = np.maximum(w.busy * x.fetch * w.fetch_us, x.latency * w.latency_us / np.maximum(w.stages - 1, 1))
    work_us = w.busy * np.maximum(matrix_us, np.maximum(x.shared * w.shared_us, x.issue * w.issue_us))
    waves = w.fill if "waves" in ideal else np.where(w.fill <= 1, 1.0, x.waves * (np.ceil(w.fill) - w.fill) + w.fill)
    block_us = w.steps * np.maximum(work_us, load_us) + x.edge * w.latency_us + x.epilogue * w.result_us
    # A spilled register is a round trip to L1 in every iteration; such a tile is kept, and priced.
    core_us = waves * block_us * (1.0 + w.spilled / 256.0)
    hbm_us = x.memory * (w.weight_us + x.reread * w.rereads_us + x.rows * w.rows_us) + dirty * w.dirty_us
    sides = np.stack([core_us, hbm_us, x.l2 * w.l2_us, x.add * w.add_us])
    longest = sides.max(axis=0)
    power = 1.0 + x.overlap
    total = longest * ((sides / longest) ** power).sum(axis=0) ** (1 / power)
    waiting = work_us < load_us
    return TileTimes(
        total + x.launch_us + w.reduce_us,
        {
            "compute": np.where(waiting, 0.0, core_us),
            "latency": np.where(waiting, core_us, 0.0),
            "memory": hbm_us,
            "l2": sides[2],
            "add": sides[3],
            "launch": w.reduce_us + x.launch_us,
        },
    )
