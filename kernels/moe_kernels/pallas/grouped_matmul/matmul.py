"""The grouped matmul over expert-sorted rows as a JAX function: forward, and the gradient to the rows."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from moe_kernels.kernel import Problem
from moe_kernels.pallas.activation import GATED
from moe_kernels.pallas.tile_limits import refuses
from moe_kernels.pallas.visit_matmul.form import tallest
from moe_kernels.pallas.visit_matmul.kernel import visit_matmul
from moe_kernels.pallas.visits import plan_visits
from moe_kernels.tile import SUBLANES, PallasTile


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
        weights: gate and up for a gated activation, else one; each [G, K, N], or [G, N, K] if ``transposed``.
        group_sizes: int32 [G], whose sum may fall short of M.
        tile: the tile.
        activation: a name of :mod:`moe_kernels.pallas.activation`.
        transposed: the weights' last axis is summed over, as in the gradient to the rows.
        scale: scales of 8-bit weights, float32 [matrices, G, blocks of K, 1, N]; see
            :mod:`moe_kernels.pallas.quantize`.
        zero_rest: write zeros to the rows past the sum of ``group_sizes``; if False they are not written at all.
        interpret: ``pltpu.InterpretParams()`` runs the kernel on the host.

    Returns:
        [M, N] in the type of ``rows``.

    Raises:
        ValueError: the kernel refuses the tile, the number of weights does not fit the activation, or the scales do not
            fit the tile.
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
        raise ValueError("transposed weights take one scale per column; scales of blocks of K are for [G, K, N]")
    if num_rows < SUBLANES:
        # An array of fewer than eight rows has memory tiles of as many rows; padded, it has tiles of eight.
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
    # Only if there are such rows, since this reads and writes the whole result.
    return lax.cond(used < num_rows, lambda o: jnp.where(jnp.arange(num_rows)[:, None] < used, o, 0), lambda o: o, out)
