"""Times of our own kernels for many problems at once, as columns: what every estimate of them is read from."""

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moe_codesign.arrays import F64, Mask
from moe_codesign.chips import Chip, GpuChip
from moe_codesign.compiler.kernels import kernel_for
from moe_codesign.compiler.tile_table import Tables, TileSpace, TileTable
from moe_codesign.cost.bound import Bounds, gemm_bounds, layer_bounds
from moe_codesign.cost.datasheet import HIGH, Slowdown, datasheet, datasheet_us, gemm_slowdown, layer_slowdown
from moe_codesign.cost.estimate import (
    NARROW_WIDENING,
    Estimate,
    NoTileError,
    doubt_notes,
    narrow_loads,
    narrow_note,
)
from moe_codesign.cost.occupancy import LAUNCH_US, TPU_LAUNCH_US
from moe_codesign.cost.ours import gpu
from moe_codesign.cost.ours.chosen import Chosen, fastest, given
from moe_codesign.domain.dtype import activation_bytes
from moe_codesign.domain.grouped_gemms import GroupedGemms
from moe_codesign.domain.rank_works import RankWorks
from moe_codesign.domain.tile_pair import TilePair
from moe_codesign.domain.timing import Grade, Timing
from moe_kernels.kernel import Kernel
from moe_kernels.tile import TileConfig


@dataclass(frozen=True, eq=False)
class OurTimes:
    """Times of layers, or of grouped GEMMs by themselves, by our kernels on one chip. Arrays are [problems].

    Args:
        chip: where.
        bounds: the physical bounds, below which no end of an interval lies.
        latency_us: the times. low_us, high_us: their intervals.
        parts_us: where the times go, by name.
        chosen: the tiles of GEMM 1 and of GEMM 2 of a layer, or of the GEMM, and what they were chosen from.
    """

    chip: Chip
    bounds: Bounds
    latency_us: F64
    low_us: F64
    high_us: F64
    parts_us: dict[str, F64]
    chosen: tuple[Chosen, ...]

    @property
    def grade(self) -> Grade:
        """Grade of every time."""
        return self.chosen[0].prices.grade

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """[problems, GEMMs], the tiles by their rows of the tables."""
        return np.stack([one.rows for one in self.chosen], axis=1)

    @functools.cached_property
    def refused(self) -> dict[int, str]:
        """By problem, why no tile can run it. Its numbers mean nothing."""
        return {place: reason for one in reversed(self.chosen) for place, reason in one.refused.items()}

    def estimate(self, place: int) -> Estimate:
        """One problem's answer.

        Raises:
            NoTileError: no tile can run it.
        """
        if (reason := self.refused.get(place)) is not None:
            raise NoTileError(reason)
        parts = {name: float(us[place]) for name, us in self.parts_us.items()}
        timing = Timing(
            grade=self.grade,
            latency_us=float(self.latency_us[place]),
            low_us=float(self.low_us[place]),
            high_us=float(self.high_us[place]),
            bound_us=float(self.bounds.us[place]),
            limiter=max(parts, key=lambda name: parts[name]),
            parts_us=parts,
        )
        tiles = tuple(one.table.tiles[one.rows[place]] for one in self.chosen)
        return Estimate(timing, self.chosen[0].table.kernel.name, tiles, self._notes(place))

    def _notes(self, place: int) -> tuple[str, ...]:
        narrow = [one.gemms for one, is_narrow in zip(self.chosen, self._narrow, strict=True) if is_narrow[place]]
        warning = self._warnings.get(place)
        notes = [narrow_note(gemms, place) for gemms in narrow[:1]] + ([warning] if warning else [])
        notes += doubt_notes(self.bounds.doubt)
        return (*notes, *dict.fromkeys(one.table.note for one in self.chosen if one.table.note))

    @functools.cached_property
    def _narrow(self) -> list[Mask]:
        return [narrow_loads(self.chip, one.gemms) for one in self.chosen]

    @functools.cached_property
    def _warnings(self) -> dict[int, str]:
        # Both GEMMs of a layer have the same rows.
        return self.chosen[0].prices.warnings(self.chosen[0].gemms)


@dataclass(frozen=True, eq=False)
class DatasheetTimes:
    """Times from the data sheet alone, where no kernel of ours runs; see :class:`OurTimes`."""

    bounds: Bounds
    slowdown: Slowdown
    reason: str
    refused: dict[int, str]
    grade: Grade = "datasheet"

    @classmethod
    def of(cls, bounds: Bounds, slowdown: Slowdown, reason: str) -> "DatasheetTimes":
        """Times by these bounds."""
        empty = np.flatnonzero(bounds.us <= 0).tolist()
        return cls(bounds, slowdown, reason, dict.fromkeys(empty, "the problem fits in cache and moves no bytes"))

    @property
    def latency_us(self) -> F64:
        return datasheet_us(self.bounds, self.slowdown)

    @property
    def low_us(self) -> F64:
        return self.bounds.us

    @property
    def high_us(self) -> F64:
        return self.latency_us * HIGH * self.bounds.doubt

    def estimate(self, place: int) -> Estimate:
        """One problem's answer.

        Raises:
            UserError: the problem moves no bytes and has no work.
        """
        return datasheet(self.bounds.of(place), self.slowdown, self.reason)


Times = OurTimes | DatasheetTimes


def layer_times(
    tables: Tables,
    chip: Chip,
    works: RankWorks,
    *,
    tiles: TilePair | None = None,
    kernel_name: str | None = None,
    space: TileSpace | None = None,
) -> Times:
    """Layers on the chip by our kernels.

    Args:
        tables: compiled tiles.
        chip: where.
        works: the rank's shares.
        tiles: of both GEMMs of every layer; None for each one's fastest of the space.
        kernel_name: default the backend's own.
        space: tile values to choose from; default the kernel's.

    Raises:
        UserError: the chip lacks the data type, or the kernel is for another backend.
        NoTileError: not one tile compiled, or a tile that is given can run no layer.
    """
    bounds = layer_bounds(chip, works)
    if kernel_name is not None:
        kernel_for(chip, kernel_name)
    if reason := _why_datasheet(chip, works.dtype, kernel_name):
        return DatasheetTimes.of(bounds, layer_slowdown(chip), reason)
    kernel = kernel_for(chip, kernel_name)
    chosen = []
    for place, gemms in enumerate(works.gemms()):
        if tiles is None:
            chosen.append(fastest(tables.get(chip, kernel, gemms.op, gemms.dtype, space), gemms))
        else:
            chosen.append(given(_table_with(tables, chip, kernel, gemms, tiles[place], space), gemms, tiles[place]))
    return _composed(chip, bounds, tuple(chosen), _layer_overhead(chip, works))


def gemm_times(
    tables: Tables, chip: Chip, gemms: GroupedGemms, *, tile: TileConfig | None = None, kernel_name: str | None = None
) -> Times:
    """Grouped GEMMs by themselves by our kernels; arguments and errors as for :func:`layer_times`."""
    bounds = gemm_bounds(chip, gemms)
    if reason := _why_datasheet(chip, gemms.dtype, kernel_name):
        return DatasheetTimes.of(bounds, gemm_slowdown(chip), reason)
    table = tables.get(chip, kernel_for(chip, kernel_name), gemms.op, gemms.dtype, only=tile)
    chosen = fastest(table, gemms) if tile is None else given(table, gemms, tile)
    # A GPU's GEMM brings its launch along.
    launch = np.full(len(gemms), 0.0 if isinstance(chip, GpuChip) else TPU_LAUNCH_US)
    return _composed(chip, bounds, (chosen,), {"launch": launch})


def _why_datasheet(chip: Chip, dtype: str, kernel_name: str | None) -> str | None:
    """Why no kernel of ours can be priced there; None if one can."""
    if not chip.compiles:
        return f"no compiler for {chip.name} here"
    kernel = kernel_for(chip, kernel_name)
    return None if dtype in kernel.dtypes else f"{kernel.name} has no {dtype}"


def _table_with(
    tables: Tables, chip: Chip, kernel: Kernel, gemms: GroupedGemms, tile: TileConfig, space: TileSpace | None
) -> TileTable:
    """The table of a tile.

    A search asks for tiles of its space, which are compiled together. Another tile is compiled alone: the default tile
    of a very size need not be of the space.
    """
    if space is not None:
        table = tables.get(chip, kernel, gemms.op, gemms.dtype, space)
        if table.index(tile) is not None or tile in table.refused:
            return table
    return tables.get(chip, kernel, gemms.op, gemms.dtype, only=tile)


def _layer_overhead(chip: Chip, works: RankWorks) -> dict[str, F64]:
    if isinstance(chip, GpuChip):
        # Two more where activations are quantised: before each GEMM.
        launches = gpu.LAYER_LAUNCHES + (2 if activation_bytes(works.dtype) == 1 else 0)
        return {"launch": np.full(len(works), launches * LAUNCH_US)}
    # Rows are put in expert order before, and summed per token after: both read and write every row.
    total_rows = works.gemms()[0].total_rows[:, 0]
    moved = works.hidden_size * (4.0 * total_rows + 4.0 * total_rows + 4.0 * works.tokens)
    return {"launch": np.full(len(works), TPU_LAUNCH_US), "permute": 1e6 * moved / chip.memory.hbm_bytes_per_s}


def _composed(chip: Chip, bounds: Bounds, chosen: tuple[Chosen, ...], overhead: dict[str, F64]) -> OurTimes:
    parts = dict(overhead)
    total = sum(overhead.values(), np.zeros(1))
    for one in chosen:
        total = total + one.times.total_us
        for name, us in one.times.parts_us.items():
            parts[name] = parts[name] + us if name in parts else us
    latency = np.maximum(total, bounds.us)
    # Both GEMMs of a layer have the same rows.
    low, high = chosen[0].prices.interval(chosen[0].gemms, of_layer=len(chosen) > 1)
    narrow = np.logical_or.reduce([narrow_loads(chip, one.gemms) for one in chosen])
    high = np.where(narrow, high * NARROW_WIDENING, high) * bounds.doubt
    low = low / bounds.doubt
    return OurTimes(chip, bounds, latency, np.maximum(latency * low, bounds.us), latency * high, parts, chosen)
