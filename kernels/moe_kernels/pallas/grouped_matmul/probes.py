"""Small problems that are compiled in place of the kernel, and whose programs say what a step of it costs.

A kernel's program depends on the problem's size on a TPU, and its static cycle count needs a grid of known size. So a
tile is compiled on a few visits of fixed rows and depth; costs per step, bucket and K follow from their differences.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from moe_kernels.kernel import Op
from moe_kernels.pallas.activation import ACTIVATION_OF
from moe_kernels.pallas.visit_matmul.kernel import visit_matmul
from moe_kernels.pallas.visits import Visits
from moe_kernels.tile import WHOLE_DEPTH, PallasTile


class Probe(NamedTuple):
    """A small problem whose compiled program an analysis reads.

    Args:
        visits: number of visits, each of one column tile.
        rows: rows of each visit.
        k: depth.
        copies, apart: as in :func:`moe_kernels.pallas.visit_matmul.kernel.visit_matmul`.
        function: what to compile, ...
        arguments: ... for arrays of these shapes.
    """

    visits: int
    rows: int
    k: int
    copies: bool
    apart: bool
    function: Callable[..., jax.Array]
    arguments: list[jax.ShapeDtypeStruct]


def probe(
    op: Op, tile: PallasTile, num_visits: int, rows: int, k: int, *, copies: bool = False, apart: bool = False
) -> Probe:
    """The kernel on ``num_visits`` visits of ``rows`` rows and one column tile, ``k`` deep."""
    matrices = 2 if op == "gate_up" else 1
    fields = len(Visits._fields)

    def run(*args: Any) -> jax.Array:
        return visit_matmul(
            Visits(*args[:fields]), args[fields], *args[fields + 1 :], tile=tile, activation=ACTIVATION_OF[op],
            num_visits=num_visits, fixed_rows=rows, copies=copies, apart=apart,
        )  # fmt: skip

    def array(*shape: int, dtype: Any = jnp.bfloat16) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype)

    plan = [array(2 if name == "counts" else num_visits, dtype=jnp.int32) for name in Visits._fields]
    weights = [array(num_visits, k, tile.tile_n) for _ in range(matrices)]
    arguments = [*plan, array(tile.tile_m * num_visits, k), *weights]
    return Probe(num_visits, rows, k, copies, apart, run, arguments)


def probe_depths(tile: PallasTile) -> tuple[int, int]:
    """Two depths K between which a step's cycles grow in a straight line: both in one tile, or both in several."""
    return (1024, 2048) if tile.tile_k >= WHOLE_DEPTH else (2 * tile.tile_k, 4 * tile.tile_k)


def probes(op: Op, tile: PallasTile) -> list[Probe]:
    """The problems to compile for one tile.

    First five that are counted (four visits, whose difference to eight gives the prologue, then few and many rows at
    two depths), then three whose programs are read: without copies, with copies, and the largest.
    """
    few, many = min(tile.bucket_m, tile.tile_m), tile.tile_m
    short, long = probe_depths(tile)
    cases = [(4, few, short), *((8, rows, k) for k in (short, long) for rows in dict.fromkeys((few, many)))]
    # The copies' code does not depend on rows and K, so it is read from the smallest problem; the whole program is read
    # from the largest.
    pair = [probe(op, tile, 8, few, short, copies=copies, apart=True) for copies in (False, True)]
    return [*(probe(op, tile, *case) for case in cases), *pair, probe(op, tile, 8, many, long, copies=True, apart=True)]
