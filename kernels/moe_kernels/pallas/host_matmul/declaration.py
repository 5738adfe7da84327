"""What the host's grouped matmul can do, and what it can be tuned by. Imports no compiler."""

from pathlib import Path

from moe_kernels.kernel import Kernel, Problem
from moe_kernels.tile import BlockedTile


def _refuses(problem: Problem, tile: BlockedTile, target: str | None) -> str | None:
    if problem.dtype != "bfloat16":
        return f"dtype {problem.dtype} is not supported by pallas.host_matmul; use bfloat16"
    if tile.tile_m % 16:
        return f"tile_m = {tile.tile_m} is not a multiple of 16, the bfloat16 sublane tile"
    for field in ("tile_k", "tile_n"):
        if getattr(tile, field) % 128:
            return f"{field} = {getattr(tile, field)} is not a multiple of 128, the lane count"
    return None


def _default_tile(problem: Problem, rows_per_group: float, target: str | None) -> BlockedTile:
    """An untuned user's tile: as few rows as the kernel takes where groups are small, and 512 x 512 of the weights."""
    return BlockedTile(tile_m=16 if rows_per_group <= 16 else 128, tile_k=512, tile_n=512)


_PALLAS = Path(__file__).parents[1]

KERNEL = Kernel(
    name="pallas.host_matmul",
    tile_type=BlockedTile,
    tile_spaces={"grid": {"tile_m": (16, 64, 128, 256), "tile_k": (512, 768, 1024), "tile_n": (256, 512, 768)}},
    launch_fields=frozenset(),
    dtypes=("bfloat16",),
    refuses=_refuses,
    default_tile=_default_tile,
    sources=(_PALLAS / "host_matmul" / "matmul.py", _PALLAS / "visits.py", _PALLAS.parent / "tile.py"),
    build=None,
    on_host=True,
)
