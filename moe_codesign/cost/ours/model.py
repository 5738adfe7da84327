"""Times of our own kernels: the best tiles of a layer or of a grouped GEMM, what they take, and what they lose."""

from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from moe_codesign.chips import Chip, GpuChip
from moe_codesign.compiler.kernels import kernel_for
from moe_codesign.compiler.tile_table import Tables, TileSpace, TileTable
from moe_codesign.cost.bound import Bound, gemm_bound, layer_bound
from moe_codesign.cost.datasheet import datasheet, gemm_slowdown, layer_slowdown
from moe_codesign.cost.estimate import (
    Answer,
    Estimate,
    Need,
    NoTileError,
    attempt,
    row_of_tile,
    timing_of,
)
from moe_codesign.cost.memory import over_memory
from moe_codesign.cost.occupancy import LAUNCH_US, TPU_LAUNCH_US
from moe_codesign.cost.ours import gpu, shipped, tpu
from moe_codesign.cost.tile_times import TileTimes
from moe_codesign.domain.dtype import activation_bytes
from moe_codesign.domain.grouped_gemm import GroupedGemm, layer_gemms
from moe_codesign.domain.question import OurGemm, OurLayer
from moe_codesign.domain.rank import RankWork, rank_work
from moe_kernels.kernel import Op, up_op
from moe_kernels.tile import TileConfig


@dataclass(frozen=True)
class OurKernels:
    """Answers questions about our kernels on one chip; see :class:`moe_codesign.cost.estimate.CostModel`."""

    chip: Chip
    tables: Tables

    at_once: ClassVar[int] = 200

    def needs(self, questions: Iterable[OurLayer | OurGemm]) -> Iterator[Need]:
        """The tile spaces of all questions that leave the tile to us; a tile that is given is compiled alone."""
        ops: dict[str, set[Op]] = {}
        for question in questions:
            match question:
                case OurLayer(tiles=None, kernel=None):
                    up = up_op(gated=question.shape.gated)
                    ops.setdefault(question.workload.dtype, set()).update((up, "down"))
                case OurGemm(tile=None, kernel=None):
                    ops.setdefault(question.gemm.dtype, set()).add(question.gemm.op)
        for dtype, wanted in ops.items():
            if self.chip.compiles and self.chip.has(dtype) and dtype in kernel_for(self.chip).dtypes:
                yield self.chip, None, sorted(wanted), dtype

    def answer(self, questions: Sequence[OurLayer | OurGemm]) -> list[Answer]:
        """An answer to each question, in their order."""
        return [attempt(lambda question=question: self._estimate(question)) for question in questions]  # type: ignore[misc]

    def _estimate(self, question: OurLayer | OurGemm) -> Estimate:
        if isinstance(question, OurGemm):
            return estimate_gemm(self.tables, self.chip, question.gemm, tile=question.tile, kernel_name=question.kernel)
        work = rank_work(question.shape, question.workload)
        found = estimate_layer(self.tables, self.chip, work, tiles=question.tiles, kernel_name=question.kernel)
        return replace(found, notes=(*over_memory(self.chip, question.shape, question.workload), *found.notes))


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
    """One layer on the chip by our kernels.

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
        return datasheet(bound, layer_slowdown(chip), f"no compiler for {chip.name} here")
    kernel = kernel_for(chip, kernel_name)
    if work.dtype not in kernel.dtypes:
        return datasheet(bound, layer_slowdown(chip), f"{kernel.name} has no {work.dtype}")
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
    """One grouped GEMM alone by our kernels; arguments and errors as for :func:`estimate_layer`."""
    bound = gemm_bound(chip, gemm)
    if not chip.compiles:
        return datasheet(bound, gemm_slowdown(chip), f"no compiler for {chip.name} here")
    kernel = kernel_for(chip, kernel_name)
    if gemm.dtype not in kernel.dtypes:
        return datasheet(bound, gemm_slowdown(chip), f"{kernel.name} has no {gemm.dtype}")
    table = tables.get(chip, kernel, gemm.op, gemm.dtype, only=tile)
    # A GPU's GEMM brings its launch along.
    launch = 0.0 if isinstance(chip, GpuChip) else TPU_LAUNCH_US
    return _compose(chip, bound, [(gemm, table, _choose(table, gemm, tile))], {"launch": launch}, False)


def _choose(table: TileTable, gemm: GroupedGemm, wanted: TileConfig | None) -> int:
    if wanted is not None:
        return row_of_tile(table, gemm, wanted)
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
    timing, notes = timing_of(chip, bound, gemms, total, parts, interval, "modelled" if of_chip else "simulated")
    if of_chip and (warning := of_chip.warning(gemms)):
        notes.append(warning)
    notes += dict.fromkeys(table.note for _, table, _ in chosen if table.note)
    losses = _losses(bound, chosen, parts, timing.latency_us) if with_losses else {}
    tiles = tuple(table.tiles[row] for _, table, row in chosen)
    return Estimate(timing, chosen[0][1].kernel.name, tiles, tuple(notes), losses)


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
