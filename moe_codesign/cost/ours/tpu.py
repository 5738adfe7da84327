"""Grade ``simulated``: a TPU's time from the compiler's own static cycles of the compiled kernel.

A step is one visit (rows of one group) and one column tile. Its cycles are known from the compiled probes as a
function of its buckets of rows and of K; its bytes from the order of the copies. Copies run blocks ahead, so a step
takes the longer of the two: of each visit where rows stay and weights pass, of each group where weights stay, since
the next group's weights come while all of this one's rows pass. Cycles over one constant per generation are
nanoseconds.

A chip's cores share out the column tiles: by the kernel where they are one device (v5p), by splitting the columns over
devices where each is one (tpu7x).
"""

from collections.abc import Set

import numpy as np

from moe_codesign.compiler.tile_table import TileTable
from moe_codesign.cost.ours.tpu_tiles import TpuTiles
from moe_codesign.cost.ours.tpu_visits import Groups, visits_of
from moe_codesign.cost.tile_times import TileTimes
from moe_codesign.domain.dtype import DTYPE_BYTES
from moe_codesign.domain.grouped_gemm import GroupedGemm
from moe_codesign.domain.grouped_gemms import GroupedGemms

INTERVAL = (0.7, 1.7)
"""Low and high over the estimate: holds 65 of 67 published tokamax times of four generations, of a kernel that is read
as this one is (results/tpu_validation.md, reading plan of forward products)."""


def tile_times(table: TileTable, gemm: GroupedGemm, ideal: Set[str] = frozenset()) -> TileTimes:
    """Time of one grouped GEMM with every tile of the table [tiles]; see :func:`times_of`."""
    return times_of(TpuTiles.of(table), GroupedGemms.of([gemm]), ideal).of(0)


def times_of(tiles: TpuTiles, gemms: GroupedGemms, ideal: Set[str] = frozenset()) -> TileTimes:
    """Times of grouped GEMMs [gemms, tiles].

    Args:
        tiles: compiled tiles of the GEMMs' op: [tiles], each for every GEMM, or [gemms, 1], one for each.
        gemms: the problems.
        ideal: losses to leave out, for asking what each costs: ``padding``.
    """
    chip, k = tiles.chip, gemms.k
    devices = chip.core.devices_per_chip
    n = np.ceil(gemms.n / devices)  # of one device
    tile_n, tile_k = np.minimum(tiles.tile_n, n), np.minimum(tiles.tile_k, k)
    columns = np.ceil(n / tile_n)
    cores = np.where(columns % tiles.cores == 0, tiles.cores, 1.0)
    columns = columns / cores  # of one core
    tile_m = np.minimum(tiles.tile_m, np.maximum(np.ceil(gemms.total_rows / 16), 1.0) * 16)
    bucket_m = np.minimum(tiles.bucket_m, tile_m)
    groups = Groups.of(gemms)
    visits = visits_of(groups, tile_m, bucket_m)

    # What a matrix unit cannot hold it pads: K to its rows.
    side = chip.core.matrix_side
    deep = np.ceil(tile_k / side) * side * np.ceil(k / tile_k)
    clock = chip.core.profile_cycles_per_ns * 1e3
    per_visit = columns / clock
    if "padding" in ideal:
        buckets = groups.summed(visits.full * groups.each(tile_m / bucket_m) + visits.buckets)
        whole = columns * tile_n * cores * devices
        unpadded = gemms.total_rows / np.maximum(buckets * bucket_m, 1.0)
        per_visit = per_visit * (gemms.n / whole) * (k / deep) * unpadded
    issue_us = per_visit * tiles.issue_cycles
    product_us = per_visit * (tiles.fixed_cycles + tiles.depth_fixed_cycles * deep)
    bucket_us = per_visit * (tiles.bucket_cycles + tiles.depth_bucket_cycles * deep)
    full_us = issue_us + product_us + tile_m / bucket_m * bucket_us
    last_us = groups.each(issue_us) + visits.products * groups.each(product_us)
    last_us = last_us + visits.buckets * groups.each(bucket_us)

    item = DTYPE_BYTES[gemms.dtype]
    here = n / cores  # columns of one core
    bytes_per_us = 1e-6 * chip.memory.hbm_bytes_per_s / chip.core.count
    weights_us = k * here * gemms.matrices * item / bytes_per_us
    row_us = (k * np.where(tiles.rows_outer > 0, 1.0, columns) + here) * item / bytes_per_us
    # Copies pass beside each visit; where weights stay while their group's rows pass, beside each group.
    by_visit = (tiles.rows_outer > 0) | (k > tile_k)
    each_by_visit = groups.each(by_visit)
    compute_us = np.where(each_by_visit, last_us, visits.full * groups.each(full_us) + last_us)
    memory_us = groups.each(weights_us) + np.where(each_by_visit, visits.rows, groups.rows) * groups.each(row_us)
    full_memory_us = weights_us + tile_m * row_us
    full_visits = np.where(by_visit, groups.summed(visits.full), 0.0)
    # Nothing hides the first blocks.
    first_us = weights_us / columns + np.minimum(groups.first, tile_m) * k * item / bytes_per_us
    waits, full_waits = memory_us > compute_us, full_memory_us > full_us
    parts = {
        "compute": groups.summed(np.where(waits, 0.0, compute_us)) + full_visits * np.where(full_waits, 0.0, full_us),
        "memory": groups.summed(np.where(waits, memory_us, 0.0))
        + full_visits * np.where(full_waits, full_memory_us, 0.0),
        "launch": tiles.prologue_cycles / clock + np.where(groups.first > 0, first_us, 0.0),
    }
    return TileTimes(parts["compute"] + parts["memory"] + parts["launch"], parts)
