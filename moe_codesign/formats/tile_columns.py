"""The column ``tile`` of a problem's row, in the words of any kernel."""

import json

from moe_codesign.chips import Chip
from moe_codesign.compiler.kernels import kernel_for
from moe_codesign.domain.grouped_gemm import GroupedGemm
from moe_codesign.domain.tile_pair import TilePair
from moe_codesign.errors import UserError
from moe_codesign.formats.problem_rows import Row, missing
from moe_kernels.kernel import Kernel
from moe_kernels.tile import WHOLE_DEPTH, TileConfig

_SAME = (
    ("block_m", "tile_m"),
    ("block_k", "tile_k"),
    ("block_n", "tile_n"),
    ("num_stages", "weight_buffers", "input_buffer_count", "num_buffers"),
    ("num_warps",),
    ("split_k",),
)
"""Names that kernels of either backend have for the same thing."""


def gemm_tile(row: Row, chip: Chip, kernel: Kernel, gemm: GroupedGemm) -> TileConfig | None:
    """A tile in any kernel's words: what ours has no word for is the default tile's, or left out."""
    value = row.get("tile")
    if missing(value):
        return None
    per_group = gemm.total_rows / max(gemm.active_groups, 1)
    fields = kernel.default_tile(gemm.problem, per_group, chip.target).as_dict()
    # Switches of the default tile would change what the given numbers mean.
    fields |= {name: False for name, is_on in fields.items() if is_on is True}
    try:
        data = json.loads(value) if isinstance(value, str) else dict(value or {})
        for names in _SAME:
            given = [data[name] for name in names if data.get(name) is not None]
            if given:
                fields |= {name: given[0] for name in names if name in fields}
        fields |= {name: data[name] for name in fields if name in data}
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
