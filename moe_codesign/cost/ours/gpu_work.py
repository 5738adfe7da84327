"""The work of grouped GEMMs with compiled tiles of a GPU, as columns."""

from collections.abc import Set
from dataclasses import dataclass

import numpy as np

from moe_codesign.arrays import F64
from moe_codesign.cost.occupancy import LAUNCH_US
from moe_codesign.cost.ours.gpu_tiles import GpuTiles
from moe_codesign.domain.dtype import DTYPE_BYTES, activation_bytes
from moe_codesign.domain.grouped_gemms import GroupedGemms


@dataclass(frozen=True)
class Work:
    """What the coefficients are multiplied with. Times are at the chip file's rates, in us.

    Arrays are [gemms, tiles], or [gemms, 1] where the tile says nothing. ``rereads_us``: weights once more per further
    band of row tiles, where the L2 forgot them. ``dirty_us``: what the L2 has to write back first, if all of it was
    written just before.
    """

    fill: F64
    steps: F64
    busy: F64
    fetch_us: F64
    latency_us: float
    weight_us: F64
    rereads_us: F64
    rows_us: F64
    dirty_us: F64
    l2_us: F64
    add_us: F64
    reduce_us: F64


def work_of(tiles: GpuTiles, gemms: GroupedGemms, ideal: Set[str] = frozenset()) -> Work:
    """Everything of the model that depends on problem and tile, and not on coefficients.

    Args:
        tiles: compiled tiles of the GEMMs' op and data type: [tiles], each for every GEMM, or [gemms, 1], one for each.
        gemms: the problems.
        ideal: losses to leave out, for asking what each costs: ``padding``, ``waves``.
    """
    chip, c = tiles.chip, tiles.columns
    cores = float(chip.core.count)
    bm, bn, bk, width = c["block_m"], c["block_n"], c["block_k"], tiles.width
    k, n, total_rows = gemms.k, gemms.n, gemms.total_rows
    weight_item, item = DTYPE_BYTES[gemms.dtype], activation_bytes(gemms.dtype)
    if "padding" in ideal:
        row_tiles, col_tiles, iterations = total_rows / bm, n / bn, k / bk
    else:
        row_tiles = gemms.row_tiles(bm)
        col_tiles, iterations = np.ceil(n / bn), np.ceil(k / bk)
    # No more parts than there are steps of K.
    splits = np.minimum(c["split_k"], np.maximum(iterations, 1.0))
    steps = np.ceil(iterations / splits) if "padding" not in ideal else iterations / splits
    blocks = row_tiles * col_tiles * splits

    # Rows of a group that an expert does not have are not fetched, but by a descriptor, which knows of no experts.
    fetched_rows = np.where(tiles.by_descriptor, row_tiles * bm, total_rows) if gemms.op == "down" else total_rows
    per_core = 1e-6 * chip.memory.l2_bytes_per_s / cores
    bandwidth = 1e-6 * chip.memory.hbm_bytes_per_s * chip.memory.hbm_efficiency
    # A column of weights is fetched again for each further band of group_m row tiles unless the L2 kept it.
    bands = np.maximum(row_tiles / np.maximum(gemms.active_groups, 1.0) / c["group_m"], 1.0) - 1.0
    forgotten = 1.0 / (1.0 + (chip.memory.last_level_bytes / (k * n * gemms.matrices * weight_item)) ** 2)
    read = (total_rows if gemms.accumulates else gemms.tokens) * k * item
    written = 4.0 * gemms.tokens * n if gemms.accumulates else item * total_rows * n
    if gemms.accumulates:
        added, reduce_us = splits * total_rows * n, np.zeros((1, 1))
    else:
        # float32 results of each part of GEMM 1: written, and read again by the kernel that sums them.
        is_summed = splits > 1
        added = np.where(is_summed, 2.0 * splits * gemms.matrices * total_rows * n, 0.0)
        reduce_us = np.where(is_summed, LAUNCH_US, 0.0)
    return Work(
        fill=blocks / (cores * tiles.resident),
        steps=steps,
        busy=np.minimum(np.maximum(blocks / cores, 1.0), tiles.resident),
        fetch_us=bk
        * (np.minimum(fetched_rows / np.maximum(row_tiles, 1e-9), bm) * item + width * weight_item)
        / per_core,
        latency_us=chip.memory.hbm_latency_ns / 1e3,
        weight_us=gemms.weight_bytes / bandwidth,
        rereads_us=gemms.weight_bytes * bands * forgotten / bandwidth,
        rows_us=(read + written) / bandwidth,
        dirty_us=np.minimum(gemms.weight_bytes + read, chip.memory.l2_bytes) / bandwidth,
        l2_us=(fetched_rows * col_tiles * k * item + blocks * steps * bk * width * weight_item) / (per_core * cores),
        add_us=4.0 * added / (per_core * cores),
        reduce_us=reduce_us,
    )
