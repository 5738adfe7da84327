"""The tiles that a serving stack launches, over columns: default rules of vLLM and SGLang, and their tuned files."""

import dataclasses
import functools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from moe_codesign.arrays import F64
from moe_codesign.errors import UserError
from moe_kernels.tile import TileConfig

STACKS = ("vllm", "sglang")
KEYS = ("BLOCK_SIZE_M", "BLOCK_SIZE_N", "BLOCK_SIZE_K", "GROUP_SIZE_M", "num_warps", "num_stages")
"""The stacks' own names of a tile's fields, in the order of StackTiles."""
BLOCK_M = (16, 32, 64, 128, 256)
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


_FILE = re.compile(
    r"E=(?P<experts>\d+),N=(?P<width>\d+),device_name=(?P<device>[^,]+?)"
    r"(?:,dtype=(?P<dtype>[^,]+?))?(?:,block_shape=\[(?P<block>[^\]]*)\])?\.json"
)
"""One GEMM's file of either stack; those of SGLang's second GEMM (_down) and of scales per channel are others."""
_NAMED = {
    "bfloat16": (None, None),
    "float16": (None, None),
    "fp8": ("fp8_w8a8", None),
    "fp8_block": ("fp8_w8a8", "128,128"),
}
Tuned = dict[tuple[int, int], dict[int, tuple[float, ...]]]
"""By (local experts, width of one rank) the tile by number of tokens, in the order of StackTiles."""


def tuned_tiles(folder: Path, device: str | None, dtype: str) -> Tuned:
    """Tuned files of a device (none, of None) and type in a folder of either stack, its subfolders included.

    A file in a later version's subfolder (SGLang's triton_3_x_y) comes before the same in an earlier one.

    Raises:
        UserError: a file that cannot be read.
    """
    found: Tuned = {}
    for path in sorted(folder.rglob("E=*.json"), key=_version):
        match = _FILE.fullmatch(path.name)
        if match is None or match["device"] != device:
            continue
        if (match["dtype"], (match["block"] or "").replace(" ", "") or None) != _NAMED.get(dtype):
            continue
        try:
            tiles = {
                int(tokens): tuple(float(tile[key]) for key in KEYS)
                for tokens, tile in json.loads(path.read_text()).items()
                if tokens.isdigit()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"tuned file {path}: {error}", fix="correct or remove it") from None
        # A height that no kernel of theirs has is not a tile of it.
        found[int(match["experts"]), int(match["width"])] = {m: t for m, t in tiles.items() if t[0] in BLOCK_M}
    return found


def _version(path: Path) -> tuple[list[int], str]:
    return [int(number) for number in re.findall(r"\d+", path.parent.name)], path.name
