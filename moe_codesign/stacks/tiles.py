"""Tiles of serving stacks' fused MoE kernels, in the stacks' own words."""

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moe_codesign.arrays import F64
from moe_kernels.tile import TileConfig

KEYS = ("BLOCK_SIZE_M", "BLOCK_SIZE_N", "BLOCK_SIZE_K", "GROUP_SIZE_M", "num_warps", "num_stages")
"""The stacks' own names of a tile's fields, in the order of StackTiles."""
BLOCK_M = (8, 16, 32, 64, 128, 256)
"""Heights that the rules and tuned files choose from."""


@dataclass(frozen=True)
class StackTiles:
    """Tile of each row, both GEMMs the same."""

    block_m: F64
    block_n: F64
    block_k: F64
    group_m: F64
    num_warps: F64
    num_stages: F64

    def replaced(self, rows: np.ndarray, other: "StackTiles") -> "StackTiles":
        """These, and in those rows the other's."""
        columns = [np.array(values, dtype=float) for values in dataclasses.astuple(self)]
        for column, values in zip(columns, dataclasses.astuple(other), strict=True):
            column[rows] = values
        return StackTiles(*columns)

    @classmethod
    def joined(cls, parts: Sequence["StackTiles"]) -> "StackTiles":
        """One after the other."""
        return cls(*(np.concatenate(column) for column in zip(*map(dataclasses.astuple, parts), strict=True)))

    def of_row(self, row: int) -> "StackTile":
        """One row's tile."""
        columns = (self.block_m, self.block_n, self.block_k, self.group_m, self.num_warps, self.num_stages)
        return _stack_tile(*(int(values[row]) for values in columns))


@dataclass(frozen=True, kw_only=True)
class StackTile(TileConfig):
    """One tile in the stacks' own words."""

    BLOCK_SIZE_M: int
    BLOCK_SIZE_N: int
    BLOCK_SIZE_K: int
    GROUP_SIZE_M: int
    num_warps: int
    num_stages: int

    def label(self) -> str:
        """As ours are printed: rows, columns, depth, then warps, stages and the group of rows."""
        sizes = f"{self.BLOCK_SIZE_M}x{self.BLOCK_SIZE_N}x{self.BLOCK_SIZE_K}"
        return f"{sizes} w{self.num_warps} s{self.num_stages} g{self.GROUP_SIZE_M}"


@functools.lru_cache(maxsize=4096)
def _stack_tile(*values: int) -> StackTile:
    """Rows are many, the tiles that they run few."""
    return StackTile(**dict(zip(KEYS, values, strict=True)))


def by_tokens(num_tokens: F64, *cases: tuple[float, float], last: float) -> F64:
    """The value of the first case (most tokens, value) whose number of tokens is not exceeded, else ``last``."""
    found: F64 = np.select([num_tokens <= most for most, _ in cases], [value for _, value in cases], default=last)
    return found
