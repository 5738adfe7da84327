"""What prices our kernels' tiles on a chip: the model of its kind, with a table's tiles."""

from collections.abc import Set
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from moe_codesign.arrays import F64
from moe_codesign.chips import GpuChip
from moe_codesign.compiler.tile_table import TileTable
from moe_codesign.cost.estimate import NoTileError
from moe_codesign.cost.ours import shipped, tpu
from moe_codesign.cost.ours.gpu_tiles import GpuTiles
from moe_codesign.cost.ours.learned import OurModel
from moe_codesign.cost.ours.tpu_tiles import TpuTiles
from moe_codesign.cost.tile_times import TileTimes
from moe_codesign.domain.grouped_gemms import GroupedGemms
from moe_codesign.domain.timing import Grade


@dataclass(frozen=True, eq=False)
class GpuPrices:
    """Times by the facts of GPU binaries and races of tiles.

    ``cells``: how many GEMMs times tiles it is best asked at a time, so that a term's numbers stay in a core's cache.
    """

    model: OurModel
    tiles: GpuTiles
    grade: ClassVar[Grade] = "modelled"
    cells: ClassVar[int] = 16_384

    def times(self, gemms: GroupedGemms, ideal: Set[str] = frozenset()) -> TileTimes:
        """[gemms, tiles]; ``ideal`` are losses to leave out."""
        return self.model.times(self.tiles, gemms, ideal)

    def one_each(self, rows: npt.NDArray[np.int64]) -> "GpuPrices":
        """One tile for each GEMM, by the tiles' rows: its times are [gemms, 1]."""
        return replace(self, tiles=self.tiles.one_each(rows))

    def interval(self, gemms: GroupedGemms, *, of_layer: bool) -> tuple[F64, F64]:
        """Low and high over the time [gemms]: of a GEMM, or of the layer whose GEMM 1 or 2 it is."""
        return self.model.interval(gemms, of_layer=of_layer)

    def warnings(self, gemms: GroupedGemms) -> dict[int, str]:
        """Why intervals are wide, by place of the GEMM."""
        return self.model.warnings(gemms)


@dataclass(frozen=True, eq=False)
class TpuPrices:
    """Times by the cycles of TPU programs; see :class:`GpuPrices`."""

    tiles: TpuTiles
    grade: ClassVar[Grade] = "simulated"
    cells: ClassVar[int] = 4_096

    def times(self, gemms: GroupedGemms, ideal: Set[str] = frozenset()) -> TileTimes:
        return tpu.times_of(self.tiles, gemms, ideal)

    def one_each(self, rows: npt.NDArray[np.int64]) -> "TpuPrices":
        return replace(self, tiles=self.tiles.one_each(rows))

    def interval(self, gemms: GroupedGemms, *, of_layer: bool) -> tuple[F64, F64]:
        low, high = tpu.INTERVAL
        return np.full(len(gemms), low), np.full(len(gemms), high)

    def warnings(self, gemms: GroupedGemms) -> dict[int, str]:
        return {}


Prices = GpuPrices | TpuPrices


def prices_of(table: TileTable, dtype: str) -> Prices:
    """What prices the table's tiles for operands of that type.

    Raises:
        NoTileError: not one tile compiled.
    """
    if not len(table):
        reasons = sorted(set(table.refused.values()))
        raise NoTileError(f"no tile of {table.kernel.name} {table.op} compiles for {table.chip.name}: {reasons[0]}")
    if isinstance(table.chip, GpuChip):
        return GpuPrices(shipped.of_chip(table.chip), GpuTiles.of(table, dtype))
    return TpuPrices(TpuTiles.of(table))
