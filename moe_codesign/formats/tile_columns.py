"""The column ``tile`` of a problem's row, in the words of any kernel."""

import json

from moe_codesign.chips import Chip
from moe_codesign.compiler.kernels import kernel_for
from moe_codesign.domain.grouped_gemm import GroupedGemm
from moe_codesign.domain.tile_pair import TilePair
from moe_codesign.errors import UserError
from moe_codesign.formats.problem_rows import Row, missing
from moe_kernels.kernel import Kernel
from moe_kernels.tile import WHOLE_DEPTH, PallasTile, TileConfig

_SAME: dict[type[TileConfig], dict[str, str]] = {
    PallasTile: {"input_buffer_count": "weight_buffers", "num_buffers": "weight_buffers"},
}
"""Our field by what public kernels of the backend call it."""
_LEFT_OUT: dict[type[TileConfig], tuple[str, ...]] = {PallasTile: ("combine_scopes", "bucket_base")}
"""Fields of such kernels that the models know nothing of."""
_SIZES = ("block_m", "block_k", "block_n", "tile_m", "tile_k", "tile_n")
"""Fields of either backend without which a tile is none."""


def is_default(row: Row) -> bool:
    """Whether the column ``tile`` asks for the tile that an untuned user gets."""
    return str(row.get("tile")).strip().lower() == "default"


def gemm_tile(row: Row, chip: Chip, kernel: Kernel, gemm: GroupedGemm) -> TileConfig | None:
    """A tile in the words of our kernel or of a public one of its backend; what is not given is the default tile's.

    Raises:
        UserError: it is not JSON, lacks a block's size, or has a field of another backend's kernels or of none.
    """
    value = row.get("tile")
    if missing(value):
        return None
    default = kernel.default_tile(gemm.problem, gemm.total_rows / max(gemm.active_groups, 1), chip.target)
    if is_default(row):
        return default
    fields = default.as_dict()
    # Switches of the default tile would change what the given numbers mean.
    fields |= {name: False for name, is_on in fields.items() if is_on is True}
    try:
        data = json.loads(value) if isinstance(value, str) else dict(value or {})
        kind = kernel.tile_type
        same, left_out = _SAME.get(kind, {}), _LEFT_OUT.get(kind, ())
        own = {
            same.get(name, name): given for name, given in data.items() if given is not None and name not in left_out
        }
        if strange := sorted(own.keys() - fields.keys()):
            raise ValueError(f"{kernel.name} has no {', '.join(strange)}")
        if lacking := [name for name in _SIZES if name in fields and name not in own]:
            raise ValueError(f"{', '.join(lacking)} is missing")
        fields |= own
        if "swap_ab" in fields and int(fields["block_m"]) < 16:
            fields["swap_ab"] = True  # so few rows can only be the narrow side of a matrix instruction
        if "tile_k" in fields and int(fields["tile_k"]) >= gemm.k:
            fields["tile_k"] = max(int(fields["tile_k"]), WHOLE_DEPTH)
        return kernel.tile_type.from_dict(fields)
    except (ValueError, TypeError) as error:
        raise UserError(f"tile {value!r}: {error}", fix='give JSON such as {"block_m": 64, ...}') from None


def tiles_of(row: Row, chip: Chip, kernel: str | None) -> TilePair | None:
    """The tiles of both GEMMs that the column ``tile`` gives, or None where it is empty.

    Raises:
        UserError: it is not JSON, or names a field that the kernel does not have.
    """
    value = row.get("tile")
    if missing(value):
        return None
    try:
        data = json.loads(value) if isinstance(value, str) else dict(value or {})
        tile_type = kernel_for(chip, kernel).tile_type
        if {"up", "down"} == set(data):
            return TilePair(tile_type.from_dict(data["up"]), tile_type.from_dict(data["down"]))
        tile = tile_type.from_dict(data)
    except (ValueError, TypeError) as error:
        raise UserError(f"tile {value!r}: {error}", fix='give JSON such as {"block_m": 64, ...}') from None
    return TilePair(tile, tile)
