"""Compile every Pallas kernel for one TPU; run as a process of its own: prints a JSON line a kernel and shape.

python -m tests.compiler.tpu_programs v6e:2x2 0 1     share 0 of 1 of the catalogue's shapes: all of them
"""

import json
import os
import sys
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from moe_codesign.compiler.tpu import compile_for
from moe_codesign.models import models
from moe_kernels.kernel import Op, Problem
from moe_kernels.pallas.activation import ACTIVATION_OF
from moe_kernels.pallas.grouped_matmul.declaration import KERNEL
from moe_kernels.pallas.grouped_matmul.matmul import grouped_mm
from moe_kernels.pallas.weight_gradient import weight_gradient
from moe_kernels.tile import PallasTile

ROWS, GROUPS = 4100, 8
UNALIGNED = ((2048, 1408), (2880, 704), (200, 136))


def array(*shape: int, dtype: Any = jnp.bfloat16) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


def forward(tile: PallasTile, activation: str, transposed: bool, matrices: int, *args: Any) -> jax.Array:
    rows, sizes, *rest = args
    weights, scale = tuple(rest[:matrices]), rest[matrices] if len(rest) > matrices else None
    return grouped_mm(rows, weights, sizes, tile=tile, activation=activation, transposed=transposed, scale=scale)


def cases(target: str, share: int, shares: int) -> Any:
    sizes = array(GROUPS, dtype=jnp.int32)
    for name, shape in list(models().items())[share::shares]:
        ops: tuple[Op, ...] = ("gate_up", "down") if shape.gated else ("up", "down")
        for op in ops:
            k, n = shape.hidden_size, shape.moe_intermediate_size
            k, n = (n, k) if op == "down" else (k, n)
            matrices = 2 if op == "gate_up" else 1
            tile = KERNEL.default_tile(Problem(op=op, dtype="bfloat16", k=k, n=n), 512.0, target)
            assert isinstance(tile, PallasTile)
            function = partial(forward, tile, ACTIVATION_OF[op], False, matrices)
            yield f"{name} {op}", function, [array(ROWS, k), sizes, *[array(GROUPS, k, n)] * matrices]
    for k, n in UNALIGNED:
        rows = array(ROWS, k)
        for tile_k in (512, 16384):
            tile = PallasTile(tile_m=128, tile_k=tile_k, tile_n=256, rows_outer=tile_k == 512)
            plain = [rows, sizes, array(GROUPS, k, n)]
            yield f"forward {k}x{n} {tile_k}", partial(forward, tile, "none", False, 1), plain
            yield (
                f"to rows {k}x{n} {tile_k}",
                partial(forward, tile, "none", True, 1),
                [rows, sizes, array(GROUPS, n, k)],
            )
            wide = [array(ROWS, k, dtype=jnp.float32), sizes, array(GROUPS, k, n, dtype=jnp.float32)]
            yield f"float32 {k}x{n} {tile_k}", partial(forward, tile, "none", False, 1), wide
            for dtype in (jnp.int8, jnp.float8_e4m3fn):
                narrow = [rows, sizes, array(GROUPS, k, n, dtype=dtype), array(1, GROUPS, 1, 1, n, dtype=jnp.float32)]
                yield f"{dtype.__name__} {k}x{n} {tile_k}", partial(forward, tile, "none", False, 1), narrow
        tile = PallasTile(tile_m=512, tile_k=512, tile_n=512)
        yield f"to weights {k}x{n}", partial(weight_gradient, tile=tile), [rows, array(ROWS, n), sizes]


def main() -> None:
    os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"
    target, share, shares = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    for name, function, arguments in cases(target, share, shares):
        try:
            compile_for(target, function, arguments)
        except Exception as error:  # printed, and judged by the test
            print(json.dumps({"name": name, "error": str(error)[:500]}), flush=True)
        else:
            print(json.dumps({"name": name}), flush=True)


if __name__ == "__main__":
    main()
