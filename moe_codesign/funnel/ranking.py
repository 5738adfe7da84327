"""Which pairs of tiles are worth a measurement."""

from collections.abc import Sequence

from moe_codesign.chips import Chip
from moe_codesign.compiler.kernels import default_tiles
from moe_codesign.compiler.tile_table import Tables, TileSpace
from moe_codesign.cost.ours.model import estimate_layer
from moe_codesign.domain.grouped_gemm import layer_gemms
from moe_codesign.domain.rank import RankWork
from moe_codesign.domain.tile_pair import TilePair
from moe_kernels.kernel import Kernel
from moe_kernels.tile import BlockedTile, TileConfig


def promising(
    tables: Tables, chip: Chip, kernel: Kernel, work: RankWork, *, top: int, space: TileSpace | None = None
) -> list[TilePair]:
    """The few pairs worth measuring, the most promising first.

    On an accelerator: the best pair by the cost model, then the kernel's default. On the host, which has no compiled
    tiles to rank: the pairs with the fewest grid steps.

    Args:
        tables: compiled tiles.
        chip: where.
        kernel: whose tiles.
        work: the rank's share of the layer.
        top: how many at most.
        space: tile values to choose from; default the kernel's. Tiles outside it are left out, the default too.

    Raises:
        UserError: the chip lacks the data type.
        NoTileError: no tile of the space can run this problem.
    """
    if chip.is_host:
        orders = [
            sorted(kernel.tiles(space), key=lambda tile, g=gemm: _grid_steps(tile, g.rows, g.k, g.n))  # type: ignore[misc]
            for gemm in layer_gemms(work)
        ]
        return [TilePair(up, down) for up, down in zip(orders[0][:top], orders[1][:top], strict=True)]
    best = estimate_layer(tables, chip, work, space=space).tiles
    default = default_tiles(kernel, work, chip.target)
    if not best:  # nothing is compiled for this data type, so that nothing is ranked
        return [default]
    allowed = all(getattr(tile, field) in values for tile in default for field, values in (space or {}).items())
    return list(dict.fromkeys([TilePair(*best), *([default] if allowed else [])]))[:top]


def _grid_steps(tile: TileConfig, rows: Sequence[int], k: int, n: int) -> tuple[float, float]:
    """Grid steps, then padded rows, of the host's kernel.

    In interpret mode each step copies its blocks, which costs far more than the multiplication.
    """
    assert isinstance(tile, BlockedTile)
    visits = sum(-(-int(r) // tile.tile_m) for r in rows if r)
    return visits * -(-k // tile.tile_k) * -(-n // tile.tile_n), visits * tile.tile_m
