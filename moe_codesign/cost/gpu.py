"""Grade ``modelled``: a GPU's time from the compiled binary's facts and the chip file.

Per GEMM four times run side by side, and the longest nearly decides: the cores' (tiles in waves, each iteration the
longest of matrix work, shared memory, instruction issue, fetching and load latency over the pipeline's depth), HBM's,
the L2's, and that of the atomic adds. What is not in a chip file is a coefficient, without units where it scales a
chip's number, so that it can be carried to another chip.
"""

from collections.abc import Set
from dataclasses import astuple, dataclass
from typing import Self

import numpy as np

from moe_codesign.chips import Chip
from moe_codesign.cost.problem import GroupedGemm
from moe_codesign.cost.table import F64, TileTable
from moe_codesign.shape import DTYPE_BYTES, activation_bytes

_BLOCK_RESERVED_BYTES = 1024
"""Shared memory that CUDA keeps for itself in each block (CUDA C++ Programming Guide, compute capability 8 on)."""
LAYER_LAUNCHES = 4
"""Kernels of a layer beside the GEMMs' own: place, count, the sum's zeros, and the row tokens."""
LAUNCH_US = 3.0
"""Per kernel, drain and fill included: 3.1 us for one that does nothing, between two events (results/gpu, H100)."""
_SHARED_BYTES_PER_CYCLE = 128.0
"""Of a core's shared memory: 32 banks of 4 bytes (CUDA C++ Programming Guide)."""


@dataclass(frozen=True)
class Coefficients:
    """What is fitted, all positive. The defaults are the H100's (results/accuracy/native.md).

    Args:
        overlap: exponent of the power mean of core, HBM, L2 and add time, over 1.
        matrix: time of a step's matrix instructions over that at the chip's peak.
        alone: extra share of it where one group of four warps has wide matrix instructions to itself.
        legacy: of warp-level matrix instructions on a chip that has wide ones, over peak.
        issue: time to issue an iteration's instructions over one a scheduler and cycle.
        shared: time that matrix instructions read shared memory over 128 bytes a cycle.
        latency: of a load, in units of the chip file's; num_stages - 1 are in flight.
        fetch: time to fetch a step's operands over a core's part of the L2's bandwidth.
        edge: start and end of a block, in units of memory latency.
        epilogue: time to store a block's results over that of as many float32 at a core's part of the L2's bandwidth.
        waves: weight of whole waves over their fraction; over 1: the last one is slower than its share.
        memory: time of HBM traffic over that at the chip file's bandwidth.
        rows: the same of the rows that are read and written, over that of weights.
        reread: share of a forgotten weight that is fetched again per further band.
        l2: time of L2 traffic over that at the chip file's bandwidth. add: the same of atomic adds.
        launch_us: of the kernel.
    """

    overlap: float = 1.96
    matrix: float = 0.99
    alone: float = 0.6
    legacy: float = 2.8
    issue: float = 2.0
    shared: float = 1.2
    latency: float = 2.9
    fetch: float = 0.73
    edge: float = 3.4
    epilogue: float = 3.0
    waves: float = 1.3
    memory: float = 1.05
    rows: float = 2.8
    reread: float = 0.46
    l2: float = 0.75
    add: float = 9.7
    launch_us: float = 7.2

    def logs(self) -> F64:
        return np.asarray(np.log(np.array(astuple(self))))

    @classmethod
    def from_logs(cls, logs: F64) -> Self:
        return cls(*np.exp(logs).tolist())


@dataclass(frozen=True)
class TileTimes:
    """Per tile: time and its parts, all in us."""

    total_us: F64
    parts_us: dict[str, F64]

    def scaled(self, factor: F64) -> "TileTimes":
        """All of it times a factor per tile."""
        return TileTimes(self.total_us * factor, {name: us * factor for name, us in self.parts_us.items()})


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
    steps = np.ceil(iterations / splits) if "padding" not in ideal else iterations / splits
    blocks = row_tiles * col_tiles * splits
    resident = resident_blocks(table)
    # A persistent launch starts this many programs on a core, and no more.
    resident = np.where(c["persistent"] > 0, np.minimum(resident, np.maximum(8 // c["num_warps"], 1)), resident)

    clock = chip.core.clock_hz or 1e9
    peak = np.where(c["narrow_mma"] > 0, _peak(chip, gemm.dtype), _peak(chip, "bfloat16"))
    width = bn * gemm.matrices
    wide = c["wide_mma"]
    groups = np.maximum(c["num_warps"] / 4, 1.0)
    # Rows of a group that an expert does not have are not fetched, but by a descriptor, which knows of no experts.
    by_descriptor = (c["tma"] > 0) & (c["swap_ab"] == 0) & (gemm.op == "down")
    fetched_rows = np.where(by_descriptor, row_tiles * bm, float(rows.sum()))
    per_core = 1e-6 * (chip.memory.l2_bytes_per_s or chip.memory.hbm_bytes_per_s) / cores
    bandwidth = 1e-6 * chip.memory.hbm_bytes_per_s * chip.memory.hbm_efficiency
    # A column of weights is fetched again for each further band of group_m row tiles unless the L2 kept it.
    bands = np.maximum(row_tiles / max(len(rows), 1) / c["group_m"], 1.0) - 1.0
    l2_bytes = chip.memory.l3_bytes or chip.memory.l2_bytes or 1.0
    forgotten = 1.0 / (1.0 + (l2_bytes / (gemm.k * gemm.n * gemm.matrices * weight_item)) ** 2)
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
        # Of Blackwell one thread issues for all.
        is_alone=wide * (groups <= 1) * (chip.target == "cuda:90"),
        issue_us=1e6 * c["loop_instructions"] * c["num_warps"] / (chip.core.schedulers or 4) / clock,
        # Elsewhere instructions have other shapes, and nothing was fitted.
        shared_us=(chip.target == "cuda:90")
        * 1e6
        * _shared_bytes(c, width, groups, item)
        / (_SHARED_BYTES_PER_CYCLE * clock),
        fetch_us=bk
        * (np.minimum(fetched_rows / np.maximum(row_tiles, 1e-9), bm) * item + width * weight_item)
        / per_core,
        latency_us=(chip.memory.hbm_latency_ns or 500.0) / 1e3,
        result_us=bm * width * 4.0 / per_core,
        spilled=c["spill_bytes"],
        weight_us=gemm.weight_bytes / bandwidth * one,
        rereads_us=gemm.weight_bytes * bands * forgotten / bandwidth,
        rows_us=(read + written) / bandwidth * one,
        dirty_us=np.minimum(gemm.weight_bytes + read, chip.memory.l2_bytes or 0.0) / bandwidth * one,
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


def tile_times(
    table: TileTable, gemm: GroupedGemm, x: Coefficients, ideal: Set[str] = frozenset(), *, dirty: float = 0.0
) -> TileTimes:
    """Time of one grouped GEMM with every tile of the table, launch included; see :func:`work_of`, :func:`times_of`."""
    return times_of(work_of(table, gemm, ideal), x, ideal, dirty=dirty)


def times_of(w: Work, x: Coefficients, ideal: Set[str] = frozenset(), *, dirty: float = 0.0) -> TileTimes:
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
