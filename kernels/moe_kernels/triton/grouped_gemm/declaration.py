"""What the grouped GEMM can do, and what it can be tuned by. Imports no compiler."""

from pathlib import Path
from typing import Any

from moe_kernels.kernel import Kernel, Op
from moe_kernels.tile import TritonTile
from moe_kernels.triton.formats import SERVED
from moe_kernels.triton.support import refusal
from moe_kernels.triton.tiles import default_tile


def _build(op: Op, tile: TritonTile, dtype: str, target: str) -> tuple[Any, dict[str, Any]]:
    from moe_kernels.triton.ahead_of_time import source
    from moe_kernels.triton.grouped_gemm.kernel import grouped_gemm_kernel

    return source(grouped_gemm_kernel, op, tile, dtype, target)


_TRITON = Path(__file__).parents[1]

SOURCES = (
    *(_TRITON / "grouped_gemm" / f"{name}.py" for name in ("kernel", "gemm_tile", "epilogue")),
    *(_TRITON / f"{name}.py" for name in ("activation", "unpack", "formats", "ahead_of_time")),
    _TRITON.parent / "tile.py",
)
"""Files whose text decides the binary. The recipe above passes on what it is given, so this file is not among them:
new values in the tile spaces leave what is compiled valid."""

KERNEL = Kernel(
    name="triton.grouped_gemm",
    tile_type=TritonTile,
    tile_spaces={
        "pointers": {
            "block_m": (16, 32, 64, 128),
            "block_n": (64, 128, 256),
            "block_k": (64, 128),
            "num_warps": (4, 8),
            "num_stages": (3, 4),
            "group_m": (1, 8),
        },
        # Few rows per expert: the weights on the wide side, K split where there are too few programs.
        "few rows": {
            "block_m": (8, 16, 32),
            "block_n": (64, 128),
            "block_k": (64, 128),
            "num_warps": (4,),
            "num_stages": (3, 4),
            "group_m": (1,),
            "split_k": (1, 2, 4, 8),
            "tma": (False, True),
            "swap_ab": (True,),
        },
        "descriptors": {
            "block_m": (64, 128),
            "block_n": (64, 128, 256),
            "block_k": (64,),
            "num_warps": (4, 8),
            "num_stages": (3, 4),
            "group_m": (1, 8),
            "persistent": (False, True),
            "tma": (True,),
        },
    },
    # Under split_k GEMM 1 stores parts where else it applies the activation: the same loop, which is what is read.
    # With split_k above 1, GEMM 1 stores partial sums instead of applying the activation. Its main loop, which is what
    # is read from the binary, is the same.
    launch_fields=frozenset({"group_m", "split_k"}),
    dtypes=SERVED,
    refuses=refusal,
    default_tile=default_tile,
    sources=SOURCES,
    build=_build,
)
