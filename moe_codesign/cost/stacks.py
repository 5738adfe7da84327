"""The tiles that a serving stack launches, over columns: default rules of vLLM and SGLang, and their tuned files."""

import dataclasses
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from moe_codesign.cost.table import F64
from moe_codesign.errors import UserError

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

    def of_row(self, row: int) -> dict[str, int]:
        """One row's tile in the stacks' own words."""
        values = (int(values[row]) for values in dataclasses.astuple(self))
        return dict(zip(KEYS, values, strict=True))


def default_tiles(stack: str, dtype: str, num_tokens: F64, local_experts: F64) -> StackTiles:
    """The rule that runs without a tuned file (vLLM 0.33.0, SGLang 0.5.23, CUDA).

    Args:
        stack: ``vllm`` or ``sglang``.
        dtype: of the layer.
        num_tokens: [rows] tokens of the batch. local_experts: [rows] experts of the rank.

    Raises:
        UserError: a stack that is not known.
    """
    m, block = num_tokens, dtype == "fp8_block"
    one = np.ones_like(m)

    def pick(*cases: tuple[float, float], last: float) -> F64:
        """The value of the first case whose number of tokens is not exceeded."""
        found: F64 = np.select([m <= limit for limit, _ in cases], [value for _, value in cases], default=last)
        return found

    if stack == "vllm" and block:
        return StackTiles(
            pick((64, 16), last=64),
            pick((8, 64), last=128),
            128 * one,
            pick((16, 1), last=32),
            4 * one,
            pick((4, 4), last=3),
        )
    if stack == "vllm":
        return StackTiles(
            pick((32, 16), (96, 32), (512, 64), last=128),
            pick((64, 64), last=128),
            128 * one if dtype == "fp8" else pick((64, 128), last=64),
            np.where(m // local_experts > 128, 16.0, 1.0),
            pick((128, 4), last=8),
            pick((32, 4), last=3),
        )
    if stack == "sglang" and block:
        return StackTiles(64 * one, 128 * one, 128 * one, 32 * one, 4 * one, 3 * one)
    if stack == "sglang":
        few = m <= local_experts
        return StackTiles(
            np.where(few, 16.0, 64.0),
            np.where(few, 32.0, 64.0),
            np.where(few, 64.0, 32.0),
            np.where(few, 1.0, 8.0),
            4 * one,
            3 * one,
        )
    raise UserError("stack", value=stack, mend="use native, " + ", ".join(STACKS))


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
            raise UserError(f"tuned file {path}: {error}", mend="mend or remove it") from None
        # A height that no kernel of theirs has is not a tile of it.
        found[int(match["experts"]), int(match["width"])] = {m: t for m, t in tiles.items() if t[0] in BLOCK_M}
    return found


def _version(path: Path) -> tuple[list[int], str]:
    return [int(number) for number in re.findall(r"\d+", path.parent.name)], path.name


def with_tuned(tiles: StackTiles, tuned: Tuned, num_tokens: F64, local_experts: F64, width: F64) -> StackTiles:
    """The tuned tile of the nearest number of tokens in each row that has a file, the given one elsewhere."""
    for (experts, one_width), by_tokens in tuned.items():
        rows = np.flatnonzero((local_experts == experts) & (width == one_width))
        if len(rows) and by_tokens:
            known = np.array(sorted(by_tokens))
            nearest = known[np.abs(known[None, :] - num_tokens[rows, None]).argmin(axis=1)]
            tiles = tiles.replaced(rows, StackTiles(*np.array([by_tokens[m] for m in nearest]).T))
    return tiles
