"""Where a problem that grows runs over an edge of its tiles, of the chip's cores, of a scale block or of a matrix unit.

Everything a tile cuts a problem into is a grid: so many units of such a size, of which a share is work. When the
problem grows past a whole unit, one more is begun, and that share falls. Which grids fall from one problem to the next
is asked with the tiles of the first held, as counts of different tiles say nothing of each other.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from moe_codesign.arrays import F64
from moe_codesign.cost.ours.chosen import Chosen
from moe_codesign.cost.ours.gpu_tiles import GpuTiles
from moe_codesign.cost.ours.tpu_tiles import TpuTiles
from moe_codesign.domain.dtype import SCALE_BLOCK
from moe_codesign.domain.grouped_gemms import GroupedGemms

EdgeKind = Literal["tile", "wave", "scale block", "MXU", "split", "bound"]
"""A tile's side; the cores, each with as many blocks as it holds; weights that share a scale; a matrix unit's side;
ranks that must share equally; and where the physical bound passes from memory to compute."""
EDGE_KINDS: tuple[EdgeKind, ...] = get_args(EdgeKind)
_FALLS = 0.005
"""A share of work that falls by less than this has not run over an edge."""


@dataclass(frozen=True)
class Grid:
    """What a problem is cut into along one side, for each of some GEMMs.

    Args:
        kind: of the edge that lies between one unit and the next.
        what: the side, in words. unit: [gemms], the size of a unit. of: what a unit counts.
        count: [gemms], whole units that are begun. work: [gemms], the share of them that is work.
    """

    kind: EdgeKind
    what: str
    of: str
    unit: F64
    count: F64
    work: F64


def crossed(chosen: Chosen, name: str) -> list[list[tuple[EdgeKind, str]]]:
    """The edges between each GEMM and the next one, held at the tile of the first: kinds and words, [gemms - 1].

    Args:
        chosen: GEMMs of problems that grow, with their tiles.
        name: what words call the GEMM.
    """
    last = len(chosen.gemms)
    rows = chosen.rows[:-1]
    before = grids(chosen, rows, chosen.gemms.part(0, last - 1))
    after = grids(chosen, rows, chosen.gemms.part(1, last))
    found: list[list[tuple[EdgeKind, str]]] = [[] for _ in range(last - 1)]
    for one, other in zip(before, after, strict=True):
        falls = (other.work < one.work - _FALLS) & (other.count > one.count)
        for place in np.flatnonzero(falls).tolist():
            counts = f"{one.count[place]:g} to {other.count[place]:g}"
            text = f"{name} {one.what}: {counts} {one.kind}s of {one.unit[place]:g} {one.of}"
            found[place].append((one.kind, text))
    return found


def grids(chosen: Chosen, rows: npt.NDArray[np.int64], gemms: GroupedGemms) -> list[Grid]:
    """Every grid of GEMMs whose tiles are these rows of the table."""
    tiles = chosen.prices.one_each(rows).tiles
    found = _gpu_grids(tiles, gemms) if isinstance(tiles, GpuTiles) else _tpu_grids(tiles, gemms)
    if block := SCALE_BLOCK.get(gemms.dtype):
        sides = (("depth", gemms.k), ("columns", gemms.n))
        found += [_grid("scale block", what, what, size, np.full_like(size, block)) for what, size in sides]
    return found


def _gpu_grids(tiles: GpuTiles, gemms: GroupedGemms) -> list[Grid]:
    c = tiles.columns
    row_tiles = gemms.row_tiles(c["block_m"])
    columns = _grid("tile", "columns", "columns", gemms.n, c["block_n"])
    depth = _grid("tile", "depth", "deep", gemms.k, c["block_k"])
    splits = np.minimum(c["split_k"][:, 0], depth.count)
    at_once = tiles.chip.core.count * tiles.resident[:, 0]
    blocks = row_tiles[:, 0] * columns.count * splits
    return [
        Grid("tile", "rows", "rows", *_flat(c["block_m"], row_tiles, gemms.total_rows / (row_tiles * c["block_m"]))),
        columns,
        depth,
        _grid("wave", "blocks", "blocks", blocks[:, None], at_once[:, None]),
    ]


def _tpu_grids(tiles: TpuTiles, gemms: GroupedGemms) -> list[Grid]:
    side = np.full_like(gemms.k, tiles.chip.core.matrix_side)
    tile_k = np.minimum(tiles.tile_k, np.ceil(gemms.k / side) * side)
    of_cores = tiles.tile_n * tiles.cores * tiles.chip.core.devices_per_chip
    buckets = gemms.row_tiles(tiles.bucket_m)
    rows = gemms.total_rows / np.maximum(buckets * tiles.bucket_m, 1.0)
    return [
        Grid("tile", "rows", "rows", *_flat(tiles.bucket_m, buckets, rows)),
        _grid("tile", "columns", "columns", gemms.n, of_cores),
        _grid("tile", "depth", "deep", gemms.k, tile_k),
        _grid("MXU", "depth", "deep", gemms.k, side),
        _grid("MXU", "columns", "columns", gemms.n, side * tiles.chip.core.devices_per_chip),
    ]


def _grid(kind: EdgeKind, what: str, of: str, size: F64, unit: F64) -> Grid:
    count = np.ceil(size / unit)
    return Grid(kind, what, of, *_flat(unit, count, size / (np.maximum(count, 1.0) * unit)))


def _flat(unit: F64, count: F64, work: F64) -> tuple[F64, F64, F64]:
    return tuple(np.broadcast_to(one, work.shape)[:, 0] for one in (unit, count, work))  # type: ignore[return-value]
