"""The tiles that a serving stack launches, over columns: default rules of vLLM and SGLang, and their tuned files."""

import json
import re
from pathlib import Path

from moe_codesign.errors import UserError
from moe_codesign.stacks.tiles import BLOCK_M, KEYS

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
                for tokens, tile in json.loads(path.read_text(encoding="utf-8")).items()
                if tokens.isdigit()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"tuned file {path}: {error}", fix="correct or remove it") from None
        # A height that no kernel of theirs has is not a tile of it.
        found[int(match["experts"]), int(match["width"])] = {m: t for m, t in tiles.items() if t[0] in BLOCK_M}
    return found


def _version(path: Path) -> tuple[list[int], str]:
    return [int(number) for number in re.findall(r"\d+", path.parent.name)], path.name
