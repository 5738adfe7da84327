"""The estimate of a layer or a grouped GEMM on a chip: best tiles, time, grade, interval, losses."""

from collections.abc import Sequence, Set
from dataclasses import dataclass, field

import numpy as np

from moe_codesign.calibrations import ragged_dot as fitted_ragged_dot
from moe_codesign.chips import Chip, GpuChip, TpuChip
from moe_codesign.compiler.kernels import kernel_for
from moe_codesign.compiler.tile_table import Tables, TileSpace, TileTable
from moe_codesign.cost.bound import Bound, gemm_bound, layer_bound
from moe_codesign.cost.occupancy import LAUNCH_US, TPU_LAUNCH_US
from moe_codesign.cost.ours import gpu, shipped, tpu
from moe_codesign.cost.ragged_dot import gpu as ragged_dot
from moe_codesign.cost.ragged_dot import tpu as ragged_dot_tpu
from moe_codesign.cost.tile_times import TileTimes
from moe_codesign.domain.dtype import activation_bytes
from moe_codesign.domain.grouped_gemm import GroupedGemm, layer_gemms
from moe_codesign.domain.rank import RankWork
from moe_codesign.domain.tile_pair import TilePair
from moe_codesign.domain.timing import Grade, Timing
from moe_codesign.errors import UserError
from moe_kernels.kernel import Kernel
from moe_kernels.tile import TileConfig
from moe_kernels.triton.formats import FORMATS

DATASHEET_SLOWDOWN = 2.25
"""Measured time over roofline, median of 508,684 fused-MoE rows on nine GPUs (aiconfigurator-core 0.12.0)."""
DATASHEET_INTERVAL = (1.0 / DATASHEET_SLOWDOWN, 3.0)
"""From the roofline itself to three times the estimate: a roofline knows no kernel."""
_UNALIGNED_WIDENING = 5.0
"""GPU rows whose stride is no multiple of 16 bytes measured 1.1 to 5 times slower (aiconfigurator-core 0.12.0)."""


@dataclass(frozen=True)
class Estimate:
    """A time, the kernel and the tiles (GEMM 1, GEMM 2) it is for; no tiles at grade ``datasheet``."""

    timing: Timing
    kernel: str | None
    tiles: tuple[TileConfig, ...]
    notes: tuple[str, ...] = ()
    losses_us: dict[str, float] = field(default_factory=dict)


class NoTileError(Exception):
    """Nothing of the tile space can run this problem; the message says why."""


def rank_tiles(table: TileTable, gemm: GroupedGemm, ideal: Set[str] = frozenset()) -> TileTimes:
    """Time of the GEMM with every compiled tile.

    Raises:
        NoTileError: not one tile compiled.
    """
    if not len(table):
        reasons = sorted(set(table.refused.values()))
        raise NoTileError(f"no tile of {table.kernel.name} {table.op} compiles for {table.chip.name}: {reasons[0]}")
    if isinstance(table.chip, GpuChip):
        return shipped.of_chip(table.chip).tile_times(table, gemm, ideal)
    return tpu.tile_times(table, gemm, ideal)


def estimate_layer(
    tables: Tables,
    chip: Chip,
    work: RankWork,
    *,
    tiles: Sequence[TileConfig] | None = None,
    kernel_name: str | None = None,
    space: TileSpace | None = None,
    with_losses: bool = False,
) -> Estimate:
    """One layer on the chip.

    Args:
        tables: compiled tiles.
        chip: where.
        work: the rank's share.
        tiles: (GEMM 1, GEMM 2), or None for the fastest of the space.
        kernel_name: default the backend's own.
        space: tile values to choose from; default the kernel's.
        with_losses: also say what padding, waves, launches and memory cost.

    Raises:
        UserError: the chip lacks the dtype, the kernel is for another backend.
        NoTileError: the tile (or every tile) was refused; says why.
    """
    bound = layer_bound(chip, work)
    if kernel_name is not None:
        kernel_for(chip, kernel_name)
    if not chip.compiles:
        return _datasheet(bound, f"no compiler for {chip.name} here")
    kernel = kernel_for(chip, kernel_name)
    if work.dtype not in kernel.dtypes:
        return _datasheet(bound, f"{kernel.name} has no {work.dtype}")
    gemms = layer_gemms(work)
    chosen = []
    for position, gemm in enumerate(gemms):
        wanted = tiles[position] if tiles else None
        # A search asks for tiles of its space, which are compiled together; a tile by itself is compiled alone.
        only = wanted if space is None else None
        table = tables.get(chip, kernel, gemm.op, work.dtype, space, only)
        if wanted is not None and table.index(wanted) is None and wanted not in table.refused:
            # A default tile for this very size need not be of the space.
            table = tables.get(chip, kernel, gemm.op, work.dtype, only=wanted)
        chosen.append((gemm, table, _choose(table, gemm, wanted)))
    return _compose(chip, bound, chosen, _layer_overhead(chip, work), with_losses)


def estimate_gemm(
    tables: Tables, chip: Chip, gemm: GroupedGemm, *, tile: TileConfig | None = None, kernel_name: str | None = None
) -> Estimate:
    """One grouped GEMM alone; arguments and errors as :func:`estimate_layer`.

    With a tile and no kernel, it is a public ragged_dot kernel's; see :mod:`moe_codesign.cost.ragged_dot` (GPUs) and
    :mod:`moe_codesign.cost.ragged_dot_tpu`.
    """
    bound = gemm_bound(chip, gemm)
    if not chip.compiles:
        return _datasheet(bound, f"no compiler for {chip.name} here")
    kernel = kernel_for(chip, kernel_name)
    if gemm.dtype not in kernel.dtypes:
        return _datasheet(bound, f"{kernel.name} has no {gemm.dtype}")
    if tile is not None and kernel_name is None and isinstance(chip, GpuChip | TpuChip):
        return _public(tables, chip, bound, gemm, tile)
    table = tables.get(chip, kernel, gemm.op, gemm.dtype, only=tile)
    # A GPU's GEMM brings its launch along.
    launch = 0.0 if isinstance(chip, GpuChip) else TPU_LAUNCH_US
    return _compose(chip, bound, [(gemm, table, _choose(table, gemm, tile))], {"launch": launch}, False)


def _public(tables: Tables, chip: GpuChip | TpuChip, bound: Bound, gemm: GroupedGemm, tile: TileConfig) -> Estimate:
    if isinstance(chip, GpuChip):
        table = tables.get(chip, kernel_for(chip, ragged_dot.KERNEL), gemm.op, gemm.dtype, only=tile)
        found = fitted_ragged_dot.of_gpu(chip)
        interval, warning = fitted_ragged_dot.interval_and_warning(chip, found)
        times = ragged_dot.tile_times(
            table.rows(np.array([_choose(table, gemm, tile)])), gemm, found.value.coefficients
        )
        total, parts = float(times.total_us[0]), {name: float(us[0]) for name, us in times.parts_us.items()}
    else:
        of_tpu = fitted_ragged_dot.of_tpu(chip)
        interval, warning = fitted_ragged_dot.interval_and_warning(chip, of_tpu)
        fields = tile.as_dict()
        sizes = (int(fields["tile_m"]), int(fields["tile_k"]), int(fields["tile_n"]))
        parts = ragged_dot_tpu.time_parts(chip, gemm, sizes, of_tpu.value.coefficients)
        total = sum(parts.values())
        cores = f"; on one of {chip.core.count} cores, as they run" if chip.core.count > 1 else ""
        warning = warning or f"from published times of such kernels, not from a binary{cores}"
    timing, notes = _timing(chip, bound, [gemm], total, parts, interval, "modelled")
    return Estimate(timing, "ragged_dot", (tile,), (*notes, *([warning] if warning else [])))


def default_tiles(kernel: Kernel, work: RankWork, target: str | None) -> TilePair:
    """What an untuned user of the kernel gets for this work."""
    per_group = work.total_rows / max(int((work.rows > 0).sum()), 1)
    first, second = (kernel.default_tile(g.problem, per_group, target) for g in layer_gemms(work))
    return TilePair(first, second)


def _choose(table: TileTable, gemm: GroupedGemm, wanted: TileConfig | None) -> int:
    if wanted is not None:
        row = table.index(wanted)
        if row is None:
            reason = table.refused.get(wanted, "it was not compiled")
            raise NoTileError(f"tile {wanted.label()} of {table.op} on {table.chip.name}: {reason}")
        if misfit := table.kernel.refuses(gemm.problem, wanted, table.chip.target):
            raise NoTileError(f"tile {wanted.label()} of {table.op} on {table.chip.name}: {misfit}")
        return row
    times = rank_tiles(table, gemm).total_us
    refused = table.unsupported(gemm.problem)
    if len(refused) == len(table):
        raise NoTileError(f"no tile of {table.kernel.name} {table.op} takes K = {gemm.k}: {refused[0]}")
    times[list(refused)] = np.inf
    return int(np.argmin(times))


def _layer_overhead(chip: Chip, work: RankWork) -> dict[str, float]:
    if isinstance(chip, GpuChip):
        # Two more where activations are quantised: before each GEMM.
        launches = gpu.LAYER_LAUNCHES + (2 if activation_bytes(work.dtype) == 1 else 0)
        return {"launch": launches * LAUNCH_US}
    # Rows are put in expert order before, and summed per token after: both read and write every row.
    moved = work.hidden_size * (4.0 * work.total_rows + 4.0 * work.total_rows + 4.0 * work.tokens)
    return {"launch": TPU_LAUNCH_US, "permute": 1e6 * moved / chip.memory.hbm_bytes_per_s}


def _compose(
    chip: Chip,
    bound: Bound,
    chosen: list[tuple[GroupedGemm, TileTable, int]],
    overhead: dict[str, float],
    with_losses: bool,
) -> Estimate:
    total, parts = sum(overhead.values()), dict(overhead)
    for gemm, table, row in chosen:
        times = rank_tiles(table.rows(np.array([row])), gemm)
        total += float(times.total_us[0])
        for name, values in times.parts_us.items():
            parts[name] = parts.get(name, 0.0) + float(values[0])
    gemms = [gemm for gemm, _, _ in chosen]
    of_chip = shipped.of_chip(chip) if isinstance(chip, GpuChip) else None
    interval = of_chip.interval(gemms) if of_chip else tpu.INTERVAL
    timing, notes = _timing(chip, bound, gemms, total, parts, interval, "modelled" if of_chip else "simulated")
    if of_chip and (warning := of_chip.warning(gemms)):
        notes.append(warning)
    notes += dict.fromkeys(table.note for _, table, _ in chosen if table.note)
    losses = _losses(bound, chosen, parts, timing.latency_us) if with_losses else {}
    tiles = tuple(table.tiles[row] for _, table, row in chosen)
    return Estimate(timing, chosen[0][1].kernel.name, tiles, tuple(notes), losses)


def _timing(
    chip: Chip,
    bound: Bound,
    gemms: Sequence[GroupedGemm],
    total: float,
    parts: dict[str, float],
    interval: tuple[float, float],
    grade: Grade,
) -> tuple[Timing, list[str]]:
    """The time with its interval, and what widens it."""
    latency = max(total, bound.us)
    low, high = interval
    notes = []
    for gemm in gemms:
        # Rows of operands of K elements; rows of results are of N in 16 bits.
        aligned = 128 // FORMATS[gemm.dtype].weight_bits if isinstance(chip, GpuChip) else 1
        if gemm.k % aligned or (aligned > 1 and gemm.n % 8):
            high *= _UNALIGNED_WIDENING
            notes.append(f"rows of {gemm.k} or {gemm.n} elements are no multiple of 16 bytes: loads are narrow")
            break
    timing = Timing(
        grade=grade,
        latency_us=latency,
        low_us=max(latency * low, bound.us),
        high_us=latency * high,
        bound_us=bound.us,
        limiter=max(parts, key=lambda name: parts[name]),
        parts_us=parts,
    )
    return timing, notes


def _losses(
    bound: Bound, chosen: list[tuple[GroupedGemm, TileTable, int]], parts: dict[str, float], latency: float
) -> dict[str, float]:
    """What each inefficiency costs: the time with it less the time without it, one after the other.

    What remains over the physical bound is the memory system's where the bound is memory, else the pipeline's.
    """
    losses: dict[str, float] = {name: parts[name] for name in ("launch", "permute") if name in parts}
    left = latency - sum(losses.values())
    ideal: frozenset[str] = frozenset()
    for name in ("padding", "waves"):
        ideal |= {name}
        without = 0.0
        for gemm, table, row in chosen:
            times = rank_tiles(table.rows(np.array([row])), gemm, ideal)
            without += float(times.total_us[0] - times.parts_us.get("launch", np.zeros(1))[0])
        losses[name] = max(left - without, 0.0)
        left = min(left, without)
    losses["memory" if bound.kind == "memory" else "pipeline"] = max(left - bound.us, 0.0)
    return losses


def _datasheet(bound: Bound, note: str) -> Estimate:
    if bound.us <= 0:
        raise UserError("the problem fits in cache and moves no bytes", fix="give more tokens")
    latency = bound.us * DATASHEET_SLOWDOWN
    timing = Timing(
        grade="datasheet",
        latency_us=latency,
        low_us=latency * DATASHEET_INTERVAL[0] * (1 + 1e-12),
        high_us=latency * DATASHEET_INTERVAL[1],
        bound_us=bound.us,
        limiter=bound.kind,
        parts_us={"compute": bound.compute_us, "memory": bound.memory_us},
    )
    return Estimate(timing, None, (), (note,))
