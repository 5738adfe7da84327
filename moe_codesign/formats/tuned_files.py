"""The tuned files of vLLM's and SGLang's fused MoE kernels: which there are in a folder, and what they say.

``E=..,N=..,device_name=..[,dtype=..][,block_shape=[n, k]][,per_channel_quant=True][_down].json``: by number of tokens,
the tile that is launched. Both stacks' folders are read as they are, whatever else lies there.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moe_codesign.errors import UserError, first_line
from moe_codesign.files import read_json
from moe_codesign.stacks.tiles import BLOCK_M, KEYS

_FILE = re.compile(
    r"E=(?P<experts>\d+),N=(?P<width>\d+),device_name=(?P<device>[^,]*?)"
    r"(?:,dtype=(?P<dtype>[^,]+?))?(?:,block_shape=\[(?P<block>[^\]]*)\])?"
    r"(?P<other>(?:,[a-z_]+=[^,]+?)*?)(?P<down>_down)?\.json"
)
_NAMED = {
    "bfloat16": (("", "bf16"), ""),
    "float16": (("",), ""),
    "fp8": (("fp8_w8a8", "float8"), ""),
    "fp8_block": (("fp8_w8a8",), "128,128"),
}
"""The files' (data types, block shape) by ours. Scales per channel, and other kernels' files, are other types."""
_WITHOUT = {"num_warps": 4, "num_stages": 3}
"""What Triton takes where a file leaves these out, as some of SGLang's do."""

Tile = tuple[float, ...]
"""A tile in the order of KEYS."""
Key = tuple[int, int]
"""Experts of a rank, and their width there."""


@dataclass(frozen=True)
class TunedFile:
    """What one file says, or why it says nothing.

    Args:
        name: of the file.
        tiles: by number of tokens.
        error: why it cannot be read; else empty.
    """

    name: str
    tiles: Mapping[int, Tile] = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True)
class Tuned:
    """The files of one device and data type.

    Args:
        folder: where they lie.
        both: files of both GEMMs.
        down: files of the second GEMM alone, where it has its own (SGLang).
        elsewhere: devices that the folder has files of, for a shape that has none of this one.
    """

    folder: Path
    both: Mapping[Key, TunedFile]
    down: Mapping[Key, TunedFile]
    elsewhere: Mapping[Key, Sequence[str]]


def tuned_tiles(folder: Path, devices: Sequence[str], dtype: str) -> Tuned:
    """The tuned files of a device and type in a folder of either stack, its subfolders included.

    Where several files are of one shape, the device's first name comes before its others, and a file in a later
    version's subfolder (SGLang's ``triton_3_x_y``) before the same in an earlier one. A file that cannot be read is an
    error of the problems that it is for, and of no other.

    Args:
        folder: which.
        devices: names of the device.
        dtype: ours.
    """
    types, block = _NAMED.get(dtype, ((), ""))
    files: tuple[dict[Key, TunedFile], dict[Key, TunedFile]] = ({}, {})
    others: dict[Key, set[str]] = {}
    for path in sorted(folder.rglob("E=*.json"), key=lambda path: _rank(path, devices)):
        match = _FILE.fullmatch(path.name)
        if match is None or match["other"] or (match["dtype"] or "") not in types:
            continue
        if re.sub(r"\s", "", match["block"] or "") != block:
            continue
        key = int(match["experts"]), int(match["width"])
        if match["device"] in devices:
            files[bool(match["down"])][key] = _read(path)
        else:
            others.setdefault(key, set()).add(match["device"])
    return Tuned(folder, *files, {key: sorted(names) for key, names in others.items() if key not in files[0]})


def _read(path: Path) -> TunedFile:
    try:
        found = {int(tokens): _tile(tile) for tokens, tile in read_json(path).items() if tokens.isdigit()}
    except KeyError as error:
        return TunedFile(path.name, error=f"an entry has no {error}")
    except (UserError, ValueError, TypeError, AttributeError) as error:
        return TunedFile(path.name, error=first_line(error))
    return TunedFile(path.name, found) if found else TunedFile(path.name, error="it has no entry")


def _tile(entry: dict[str, Any]) -> Tile:
    tile = tuple(float({**_WITHOUT, **entry}[key]) for key in KEYS)
    if tile[0] not in BLOCK_M:
        raise ValueError(f"BLOCK_SIZE_M = {tile[0]:g}; use one of {', '.join(map(str, BLOCK_M))}")
    if not all(value >= 1 and value == int(value) for value in tile):
        raise ValueError(f"{entry} is no tile")
    return tile


def _rank(path: Path, devices: Sequence[str]) -> tuple[int, list[int], str]:
    """What is read last stays."""
    device = re.search(r"device_name=([^,]*?)(?:,|_down|\.json)", path.name)
    place = devices.index(device[1]) if device and device[1] in devices else len(devices)
    return -place, [int(number) for number in re.findall(r"\d+", path.parent.name)], path.name
