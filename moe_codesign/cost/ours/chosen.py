"""The tile of each of many grouped GEMMs: the fastest that can run it, or the one that is asked for."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moe_codesign.arrays import F64
from moe_codesign.compiler.tile_table import TileTable
from moe_codesign.cost.estimate import NoTileError, row_of_tile
from moe_codesign.cost.ours.prices import Prices, prices_of
from moe_codesign.cost.tile_times import TileTimes
from moe_codesign.domain.grouped_gemms import GroupedGemms
from moe_kernels.kernel import Problem
from moe_kernels.tile import TileConfig

_EQUAL = 1.0 + 1e-12
"""Times up to so many times the least are equal, and differ by the rounding of sums: the first such tile is taken."""


@dataclass(frozen=True, eq=False)
class Chosen:
    """The tile of each GEMM, and its time.

    Args:
        gemms: the problems.
        table: compiled tiles of their op. prices: what priced them.
        rows: int64 [gemms], the table's row of each GEMM's tile.
        times: [gemms], of that tile. refused: by GEMM, why no tile can run it; its row and its time mean nothing.
    """

    gemms: GroupedGemms
    table: TileTable
    prices: Prices
    rows: npt.NDArray[np.int64]
    times: TileTimes
    refused: dict[int, str]


def fastest(table: TileTable, gemms: GroupedGemms) -> Chosen:
    """Each GEMM's fastest tile of the table, the first among equals.

    Raises:
        NoTileError: not one tile compiled.
    """
    prices = prices_of(table, gemms.dtype)
    fitting = _Fitting(table, gemms)
    step = max(prices.cells // len(table), 1)
    found = []
    for start in range(0, len(gemms), step):
        times = prices.times(gemms.part(start, start + step))
        found.append((rows := fitting.fastest(times.total_us, start), times.at(rows)))
    rows = np.concatenate([rows for rows, _ in found])
    return Chosen(gemms, table, prices, rows, TileTimes.joined([times for _, times in found]), fitting.refused)


def given(table: TileTable, gemms: GroupedGemms, tile: TileConfig) -> Chosen:
    """This tile for each GEMM; where it did not compile, or cannot run a GEMM, that GEMM is refused.

    Raises:
        NoTileError: not one tile of the table compiled.
    """
    refused = {}
    for place in range(len(gemms)):
        try:
            row_of_tile(table, gemms.problem(place), tile)
        except NoTileError as error:
            refused[place] = str(error)
    if len(refused) == len(gemms):
        raise NoTileError(refused[0])
    prices = prices_of(table, gemms.dtype)
    rows = np.full(len(gemms), table.index(tile))
    times = prices.one_each(rows).times(gemms).at(np.zeros_like(rows))
    return Chosen(gemms, table, prices, rows, times, refused)


class _Fitting:
    """Which tiles cannot run a GEMM of this very size: asked of the few that would be chosen, not of all."""

    def __init__(self, table: TileTable, gemms: GroupedGemms) -> None:
        self._table, self._gemms = table, gemms
        self._known: dict[tuple[Problem, int], str | None] = {}
        self.refused: dict[int, str] = {}

    def fastest(self, total_us: F64, start: int) -> npt.NDArray[np.int64]:
        """The fastest tile that fits each of the GEMMs from that place on, of times [gemms, tiles]."""
        equal_us = total_us.min(axis=1, keepdims=True) * _EQUAL
        rows: npt.NDArray[np.int64] = (total_us <= equal_us).argmax(axis=1)
        for place, row in enumerate(rows.tolist()):
            problem = self._gemms.problem(start + place)
            if self._misfit(problem, row) is not None:
                rows[place] = self._next(total_us[place], problem, start + place)
        return rows

    def _next(self, total_us: F64, problem: Problem, place: int) -> int:
        for row in total_us.argsort(kind="stable"):
            if self._misfit(problem, int(row)) is None:
                return int(row)
        self.refused[place] = (
            f"no tile of {self._table.kernel.name} {self._table.op} takes K = {problem.k}: {self._misfit(problem, 0)}"
        )
        return 0

    def _misfit(self, problem: Problem, row: int) -> str | None:
        key = (problem, row)
        if key not in self._known:
            table = self._table
            self._known[key] = table.kernel.refuses(problem, table.tiles[row], table.chip.target)
        return self._known[key]
