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
import numpy.typing as npt

from moe_codesign.arrays import F64
from moe_codesign.chips import TpuChip
from moe_codesign.compiler.artifact import TpuFacts
from moe_codesign.compiler.tile_table import TileTable
from moe_codesign.cost.tile_times import TileTimes
from moe_codesign.domain.dtype import DTYPE_BYTES
from moe_codesign.domain.grouped_gemm import GroupedGemm

INTERVAL = (0.7, 1.7)
"""Low and high over the estimate: holds 65 of 67 published tokamax times of four generations, of a kernel that is read
as this one is (results/tpu_validation.md, reading plan of forward products)."""
_SUBLANES = 8
"""Rows that every copy of rows is rounded to."""


def tile_times(table: TileTable, gemm: GroupedGemm, ideal: Set[str] = frozenset()) -> TileTimes:
    """Time of one grouped GEMM with every tile of the table; see :func:`moe_codesign.cost.gpu.tile_times`."""
    found = [_one(table, row, gemm, ideal) for row in range(len(table))]
    parts = {name: np.array([one[name] for one in found]) for name in ("compute", "memory", "launch")}
    return TileTimes(sum(parts.values(), np.zeros(len(found))), parts)


def _one(table: TileTable, row: int, gemm: GroupedGemm, ideal: Set[str]) -> dict[str, float]:
    chip = TpuChip.of(table.chip)
    tile = {name: float(values[row]) for name, values in table.columns.items()}
    facts = table.facts[row]
    assert isinstance(facts, TpuFacts)
    devices = chip.core.devices_per_chip
    n = -(-gemm.n // devices)  # of one device
    tile_n, tile_k = min(tile["tile_n"], n), min(tile["tile_k"], gemm.k)
    columns = np.ceil(n / tile_n)
    cores = tile["cores"] if columns % tile["cores"] == 0 else 1.0
    columns /= cores  # of one core
    tile_m = min(tile["tile_m"], max(np.ceil(gemm.total_rows / 16), 1) * 16)
    bucket = min(tile["bucket_m"], tile_m)

    group, rows = _visits(gemm.rows, int(tile_m))
    # What a matrix unit cannot hold it pads: K to its rows.
    side = chip.core.matrix_side
    deep = np.ceil(tile_k / side) * side * np.ceil(gemm.k / tile_k)
    buckets = np.ceil(rows / bucket)
    is_full = buckets == np.ceil(tile_m / bucket)
    buckets = np.where(is_full, tile_m / bucket, buckets)  # the last of a full visit may be smaller
    # A visit that is not full runs its buckets in products of powers of two (PallasTile.stretches): each fills and
    # drains the matrix units.
    products = np.where(is_full, 1.0, _bits(buckets))
    cycles = columns * (
        facts.issue_cycles
        + products * (facts.fixed_cycles + facts.depth_fixed_cycles * deep)
        + buckets * (facts.bucket_cycles + facts.depth_bucket_cycles * deep)
    )
    if "padding" in ideal:
        whole = columns * tile_n * cores * devices
        cycles = cycles * (gemm.n / whole) * (gemm.k / deep) * gemm.total_rows / max(float((buckets * bucket).sum()), 1)
    clock = chip.core.profile_cycles_per_ns * 1e3
    compute_us = cycles / clock

    item = DTYPE_BYTES[gemm.dtype]
    here = n / cores  # columns of one core
    weights = gemm.k * here * gemm.matrices * item
    passes = 1.0 if tile["rows_outer"] else columns
    other = np.ceil(rows / _SUBLANES) * _SUBLANES * (gemm.k * passes + here) * item
    bytes_per_us = 1e-6 * chip.memory.hbm_bytes_per_s / chip.core.count
    if tile["rows_outer"] or gemm.k > tile_k or not len(rows):
        memory_us = (weights + other) / bytes_per_us
    else:
        # Weights stay while their group's rows pass.
        starts = np.flatnonzero(np.diff(group, prepend=-1))
        compute_us = np.add.reduceat(compute_us, starts)
        memory_us = (weights + np.add.reduceat(other, starts)) / bytes_per_us
    # Nothing hides the first blocks.
    first_us = (weights / columns + rows[0] * gemm.k * item) / bytes_per_us if len(rows) else 0.0
    start_us = facts.prologue_cycles / clock + first_us
    longer = np.maximum(compute_us, memory_us)
    bound_by_memory = memory_us > compute_us
    return {
        "compute": float(longer[~bound_by_memory].sum()),
        "memory": float(longer[bound_by_memory].sum()),
        "launch": float(start_us),
    }


def _bits(numbers: F64) -> F64:
    """Ones in the binary form of whole numbers."""
    return np.bitwise_count(numbers.astype(np.int64)).astype(float)


def _visits(sizes: np.ndarray, tile_m: int) -> tuple[npt.NDArray[np.int64], F64]:
    """Group of each visit, and its rows: those of earlier groups that share its first block of eight included."""
    ends = np.cumsum(sizes)
    base = (ends - sizes) // _SUBLANES * _SUBLANES
    counts = np.where(sizes > 0, -((base - ends) // tile_m), 0)
    group = np.repeat(np.arange(len(sizes)), counts)
    place = np.arange(len(group)) - np.repeat(np.cumsum(counts) - counts, counts)
    return group, np.minimum(ends[group] - base[group] - place * tile_m, tile_m).astype(float)
