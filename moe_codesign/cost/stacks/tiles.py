"""The tiles that a stack launches: a tuned file's where there is one, else its default rule's."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from moe_codesign.arrays import F64
from moe_codesign.chips import GpuChip
from moe_codesign.cost.stacks.columns import Columns
from moe_codesign.domain.dtype import DTYPE_BYTES, SCALE_BLOCK
from moe_codesign.formats.tuned_files import Tuned, TunedFile
from moe_codesign.stacks import default_rule
from moe_codesign.stacks.tiles import StackTiles


@dataclass(frozen=True)
class Launched:
    """What the stack launches for each problem.

    Args:
        up: tiles of GEMM 1.
        down: tiles of GEMM 2: the same, unless a tuned file says otherwise.
        notes: by row, the tuned file and entry that was used, or that no file matches.
        refused: by row, why the tile cannot be launched.
    """

    up: StackTiles
    down: StackTiles
    notes: Mapping[int, str]
    refused: Mapping[int, str]


def rule_tiles(columns: Columns, stack: str, dtype: str) -> StackTiles:
    """The tiles of the stack's default rule. Raises UserError if the stack is unknown."""
    return default_rule(stack)(dtype, columns.num_tokens, columns.local_experts)


def launched(columns: Columns, chip: GpuChip, stack: str, dtype: str, tuned: Tuned | None = None) -> Launched:
    """The tiles of every problem.

    Raises:
        UserError: the stack is unknown.
    """
    rule = rule_tiles(columns, stack, dtype)
    notes: dict[int, str] = {}
    refused: dict[int, str] = {}
    up = down = rule
    if tuned is not None:
        up = _with_files(rule, tuned.both, columns, notes, refused)
        down = _with_files(up, tuned.down, columns, notes, refused)
        _name_missing(tuned, columns, notes)
    up, down = (_within_scales(tiles, stack, dtype, notes, refused) for tiles in (up, down))
    for tiles in (up, down) if tuned is not None else ():
        refused |= _over_shared_memory(tiles, chip, dtype)
    for row in np.flatnonzero(up.block_m != down.block_m).tolist():
        refused[row] = (
            f"the tuned files of the two GEMMs share BLOCK_SIZE_M, these have {up.block_m[row]:.0f} and "
            f"{down.block_m[row]:.0f}"
        )
    return Launched(up, down, notes, refused)


def _with_files(
    tiles: StackTiles,
    files: Mapping[tuple[int, int], TunedFile],
    columns: Columns,
    notes: dict[int, str],
    refused: dict[int, str],
) -> StackTiles:
    """The tiles of the entry with the nearest number of tokens, in the rows that have a file."""
    for (experts, width), file in files.items():
        rows = np.flatnonzero((columns.local_experts == experts) & (columns.width == width))
        if file.error:
            refused |= dict.fromkeys(rows.tolist(), f"tuned file {file.name}: {file.error}")
        elif len(rows):
            known = np.array(sorted(file.tiles))
            nearest = known[np.abs(known[None, :] - columns.num_tokens[rows, None]).argmin(axis=1)]
            tiles = tiles.replaced(rows, StackTiles(*np.array([file.tiles[m] for m in nearest]).T))
            for row, entry in zip(rows.tolist(), nearest.tolist(), strict=True):
                notes[row] = "; ".join(filter(None, (notes.get(row), f"tuned file {file.name}, entry {entry}")))
    return tiles


def _name_missing(tuned: Tuned, columns: Columns, notes: dict[int, str]) -> None:
    """Say for rows without a file that they have none, and which other devices have one."""
    keys = zip(columns.local_experts.tolist(), columns.width.tolist(), strict=True)
    for row, (experts, width) in enumerate(keys):
        key = int(experts), int(width)
        if key not in tuned.both:
            there = tuned.elsewhere.get(key)
            of = f"; {tuned.folder.name} has it for {', '.join(there)}" if there else ""
            notes[row] = f"no tuned file for E={key[0]},N={key[1]} of this device and data type: default rule{of}"


def _within_scales(
    tiles: StackTiles, stack: str, dtype: str, notes: dict[int, str], refused: dict[int, str]
) -> StackTiles:
    """Tiles whose depth spans no more than one block of scales: vLLM cuts it, SGLang's kernel has no such tile."""
    block = SCALE_BLOCK.get(dtype)
    if block is None or not (over := np.flatnonzero(tiles.block_k > block)).size:
        return tiles
    for row in over.tolist():
        depth = f"BLOCK_SIZE_K {tiles.block_k[row]:.0f}"
        if stack == "vllm":
            notes[row] = "; ".join(filter(None, (notes.get(row), f"{depth} runs as {block}, {dtype}'s scale block")))
        else:
            refused[row] = f"{depth} spans more than one of {dtype}'s scale blocks of {block}"
    return StackTiles(**{**tiles.__dict__, "block_k": np.minimum(tiles.block_k, float(block))})


def _over_shared_memory(tiles: StackTiles, chip: GpuChip, dtype: str) -> dict[int, str]:
    """Rows whose tile needs more shared memory than a block may have. Triton holds one stage less than it counts."""
    stages = np.maximum(tiles.num_stages - 1, 1)
    needed: F64 = stages * (tiles.block_m + tiles.block_n) * tiles.block_k * DTYPE_BYTES[dtype]
    most = chip.core.shared_bytes_per_block
    return {
        row: (
            f"tile {tiles.of_row(row).label()} needs {needed[row]:.0f} bytes of shared memory, {chip.name} has {most}"
        )
        for row in np.flatnonzero(needed > most).tolist()
    }
