"""Compile Pallas kernels for one TPU; run as a process of its own: prints a JSON line a program.

python -m tests.compiler.tpu_programs v6e:2x2 catalogue 0 1     share 0 of 1 of the catalogue's sizes: all of them
"""

import itertools
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
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
DEPTHS = (512, 16384)
WIDEST = 512
"""Columns of the widest default tile."""
KINDS = ("forward", "to rows", "float32", "int8", "float8_e4m3fn", "to weights")


@dataclass(frozen=True)
class Program:
    """One compile: of a kind, or of a GEMM that these models have."""

    name: str
    kind: str
    function: Callable[..., Any]
    arguments: list[Any]
    models: tuple[str, ...] = ()


def array(*shape: int, dtype: Any = jnp.bfloat16) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


def forward(tile: PallasTile, activation: str, transposed: bool, matrices: int, *args: Any) -> jax.Array:
    rows, sizes, *rest = args
    weights, scale = tuple(rest[:matrices]), rest[matrices] if len(rest) > matrices else None
    return grouped_mm(rows, weights, sizes, tile=tile, activation=activation, transposed=transposed, scale=scale)


def unaligned(share: int, shares: int) -> list[Program]:
    """Each kind at each size that no tile divides, with K whole and cut; shares take them in turn, each every kind."""
    found = []
    cases = itertools.product(enumerate(KINDS), enumerate(itertools.product(UNALIGNED, DEPTHS)))
    for (first, kind), (turn, ((k, n), tile_k)) in cases:
        if (first + turn) % shares != share:
            continue
        rows, sizes = array(ROWS, k), array(GROUPS, dtype=jnp.int32)
        tile = PallasTile(tile_m=128, tile_k=tile_k, tile_n=256, rows_outer=tile_k == 512)
        function: Callable[..., Any] = partial(forward, tile, "none", kind == "to rows", 1)
        match kind:
            case "to weights":
                function = partial(weight_gradient, tile=PallasTile(tile_m=512, tile_k=512, tile_n=512))
                arguments = [rows, array(ROWS, n), sizes]
            case "to rows":
                arguments = [rows, sizes, array(GROUPS, n, k)]
            case "float32":
                arguments = [array(ROWS, k, dtype=jnp.float32), sizes, array(GROUPS, k, n, dtype=jnp.float32)]
            case "int8" | "float8_e4m3fn":
                weights = array(GROUPS, k, n, dtype=getattr(jnp, kind))
                arguments = [rows, sizes, weights, array(1, GROUPS, 1, 1, n, dtype=jnp.float32)]
            case _:
                arguments = [rows, sizes, array(GROUPS, k, n)]
        found.append(Program(f"{kind} {k}x{n} {tile_k}", kind, function, arguments))
    return found


def catalogue(target: str, share: int, shares: int) -> list[Program]:
    """The GEMMs of the catalogue's models with their default tiles.

    All steps over K are unrolled and those over N are a loop, so models of one K whose N leaves the same rest share a
    program: the widest N is compiled.
    """
    alike: dict[tuple[Op, int, int], dict[str, int]] = {}
    for name, shape in models().items():
        ops: tuple[Op, ...] = ("gate_up", "down") if shape.gated else ("up", "down")
        for op in ops:
            k, n = shape.hidden_size, shape.moe_intermediate_size
            k, n = (n, k) if op == "down" else (k, n)
            alike.setdefault((op, k, n % WIDEST), {})[name] = n
    found = []
    for (op, k, _), by_model in list(alike.items())[share::shares]:
        n, matrices = max(by_model.values()), 2 if op == "gate_up" else 1
        tile = KERNEL.default_tile(Problem(op=op, dtype="bfloat16", k=k, n=n), 512.0, target)
        assert isinstance(tile, PallasTile)
        assert WIDEST % tile.tile_n == 0
        function = partial(forward, tile, ACTIVATION_OF[op], False, matrices)
        arguments = [array(ROWS, k), array(GROUPS, dtype=jnp.int32), *[array(GROUPS, k, n)] * matrices]
        found.append(Program(f"{op} {k}x{n}", op, function, arguments, tuple(by_model)))
    return found


def share_of(part: str, target: str, share: int, shares: int) -> list[Program]:
    """The programs of one process."""
    return unaligned(share, shares) if part == "unaligned" else catalogue(target, share, shares)


def main() -> None:
    os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"
    target, part, share, shares = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    for one in share_of(part, target, share, shares):
        try:
            compile_for(target, one.function, one.arguments)
        except Exception as error:  # printed, and judged by the test
            print(json.dumps({"name": one.name, "error": str(error)[:500]}), flush=True)
        else:
            print(json.dumps({"name": one.name}), flush=True)


if __name__ == "__main__":
    main()
