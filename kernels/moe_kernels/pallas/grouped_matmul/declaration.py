"""What the TPU's grouped matmul can do, and what it can be tuned by. Imports no compiler."""

from pathlib import Path
from typing import Any

from moe_kernels.kernel import Kernel, Op
from moe_kernels.pallas.tile_limits import default_tile, refuses, vmem_bytes
from moe_kernels.tile import WHOLE_DEPTH, PallasTile


def _build(op: Op, tile: PallasTile) -> list[Any]:
    from moe_kernels.pallas.grouped_matmul.probes import probes

    return probes(op, tile)


_PALLAS = Path(__file__).parents[1]

KERNEL = Kernel(
    name="pallas.grouped_matmul",
    tile_type=PallasTile,
    tile_spaces={
        # Decode: as few rows as there are, weights in blocks as wide as the copies like.
        "few rows": {
            "tile_m": (16, 32, 64, 128),
            "tile_k": (WHOLE_DEPTH,),
            "tile_n": (128, 256, 512, 1024),
            "bucket_m": (128,),
            "rows_outer": (False, True),
            "cores": (1, 2),
        },
        # A tile_m that holds all of a group's rows reads its weights once: every 128 up to what VMEM can hold.
        "many rows": {
            "tile_m": (256, 384, 512, 640, 768, 1024, 1152, 1280),
            "tile_k": (WHOLE_DEPTH,),
            "tile_n": (256, 512),
            "bucket_m": (128,),
            "rows_outer": (False, True),
            "cores": (1, 2),
        },
        # A step's fixed cycles are paid less often; a third block of weights may have no room.
        "many rows, wide": {
            "tile_m": (256, 384, 512, 640, 1024, 1152),
            "tile_k": (WHOLE_DEPTH,),
            "tile_n": (1024, 2048),
            "bucket_m": (128,),
            "weight_buffers": (3, 2),
            "rows_outer": (False, True),
            "cores": (1, 2),
        },
    },
    # Copies and their order cost a step the same few bundles whatever these fields are, so one value is compiled.
    launch_fields=frozenset({"weight_buffers", "row_buffers", "rows_outer", "cores"}),
    dtypes=("bfloat16",),
    refuses=refuses,
    default_tile=default_tile,
    sources=(
        _PALLAS / "grouped_matmul" / "probes.py",
        *(_PALLAS / "visit_matmul" / f"{name}.py" for name in ("kernel", "compute", "copies", "form")),
        *(_PALLAS / f"{name}.py" for name in ("visits", "activation")),
        _PALLAS.parent / "tile.py",
    ),
    build=_build,
    memory_bytes=vmem_bytes,
)
