"""The grouped matmul over expert-sorted rows on a TPU: forward, and the gradient to the rows."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from moe_kernels.kernel import Kernel, Op, Problem
from moe_kernels.pallas.activation import GATED
from moe_kernels.pallas.tile_limits import default_tile, refuses, vmem_bytes
from moe_kernels.pallas.visit_matmul import tallest, visit_matmul
from moe_kernels.pallas.visits import SUBLANES, Visits, plan_visits
from moe_kernels.tile import WHOLE_DEPTH, PallasTile

ACTIVATION_OF: dict[Op, str] = {"gate_up": "swiglu", "up": "relu2", "down": "none"}
"""What the tool's layers apply."""


@functools.partial(jax.jit, static_argnames=("activation", "tile", "transposed", "zero_rest", "interpret"))
def grouped_mm(
    rows: jax.Array,
    weights: tuple[jax.Array, ...],
    group_sizes: jax.Array,
    *,
    tile: PallasTile,
    activation: str = "none",
    transposed: bool = False,
    scale: jax.Array | None = None,
    zero_rest: bool = True,
    interpret: Any = False,
) -> jax.Array:
    """Multiply each group's rows by its own weights.

    Args:
        rows: [M, K] in group order, bfloat16 or float32.
        weights: (gate, up) for a gated activation, else one; each [G, K, N], or [G, N, K] if ``transposed``.
        group_sizes: int32 [G], whose sum may fall short of M.
        tile: see :class:`moe_kernels.tile.PallasTile`.
        activation: a name of :mod:`moe_kernels.pallas.activation`.
        transposed: the weights' last axis is the one summed over, as in the gradient to the rows.
        scale: of 8-bit weights, float32 [matrices, G, blocks of K, 1, N]; see :mod:`moe_kernels.pallas.quantize`.
        zero_rest: rows past the sum are zeros; else they are not written.
        interpret: ``pltpu.InterpretParams`` runs it on the host.

    Returns:
        [M, N] in the type of ``rows``.

    Raises:
        ValueError: the number of weights does not fit the activation, or the scales do not fit the tile.
    """
    if (activation in GATED) != (len(weights) == 2):
        raise ValueError(
            f"activation {activation!r} takes {2 if activation in GATED else 1} weights, not {len(weights)}"
        )
    num_rows, k = rows.shape
    problem = Problem(
        op="gate_up" if len(weights) == 2 else "down", dtype="bfloat16", k=k, n=weights[0].shape[1 if transposed else 2]
    )
    if reason := refuses(problem, tile, None):
        raise ValueError(f"tile {tile.label()}: {reason}")
    if transposed and scale is not None and scale.shape[2] > 1:
        raise ValueError("transposed weights take one scale a column; scales of blocks of K are for [G, K, N]")
    if num_rows < SUBLANES:
        # So few rows lie in memory tiles of their own number.
        rows = jnp.pad(rows, ((0, SUBLANES - num_rows), (0, 0)))
    visits = plan_visits(group_sizes, rows.shape[0], min(tile.tile_m, tallest(rows.shape[0])))
    out = visit_matmul(
        visits,
        rows,
        *weights,
        tile=tile,
        activation=activation,
        transposed=transposed,
        scale=scale,
        interpret=interpret,
    )
    out = out[:num_rows]
    if not zero_rest:
        return out
    used = group_sizes.sum()
    # Only where there are such rows: it reads and writes the whole result.
    return lax.cond(used < num_rows, lambda o: jnp.where(jnp.arange(num_rows)[:, None] < used, o, 0), lambda o: o, out)


class Probe(NamedTuple):
    """A small problem whose compiled form an analysis reads: visits of so many rows and one column tile, K deep.

    ``copies``, ``apart``: see :func:`moe_kernels.pallas.visit_matmul.visit_matmul`.
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
    """The kernel on ``num_visits`` visits of ``rows`` rows and one column tile, K deep."""
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
    """Two depths K between which a step's cycles grow by a straight line: both whole, or both in several tiles."""
    return (1024, 2048) if tile.tile_k >= WHOLE_DEPTH else (2 * tile.tile_k, 4 * tile.tile_k)


def _probes(op: Op, tile: PallasTile) -> list[Probe]:
    few, many = min(tile.bucket_m, tile.tile_m), tile.tile_m
    short, long = probe_depths(tile)
    cases = [(4, few, short), *((8, rows, k) for k in (short, long) for rows in dict.fromkeys((few, many)))]
    # The copies' code is the same whatever the rows and K: read from the smallest, the whole program from the largest.
    pair = [probe(op, tile, 8, few, short, copies=copies, apart=True) for copies in (False, True)]
    return [*(probe(op, tile, *case) for case in cases), *pair, probe(op, tile, 8, many, long, copies=True, apart=True)]


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
    # Copies and their order cost a step the same few bundles whatever they are: read once.
    launch_fields=frozenset({"weight_buffers", "row_buffers", "rows_outer", "cores"}),
    dtypes=("bfloat16",),
    refuses=refuses,
    default_tile=default_tile,
    sources=tuple(
        Path(__file__).parent / f"{name}.py" for name in ("grouped_matmul", "visit_matmul", "visits", "activation")
    ),
    build=_probes,
    memory_bytes=vmem_bytes,
)
