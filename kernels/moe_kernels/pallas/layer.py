"""The expert half of an MoE layer in JAX, on the Pallas grouped matmul."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from moe_kernels.kernel import Op, up_op
from moe_kernels.pallas.activation import ACTIVATION_OF
from moe_kernels.pallas.grouped_matmul.matmul import grouped_mm
from moe_kernels.pallas.host_matmul.matmul import host_matmul
from moe_kernels.tile import BlockedTile, PallasTile

Tile = PallasTile | BlockedTile


@functools.partial(jax.jit, static_argnames=("tile_up", "tile_down", "interpret"))
def moe_experts(
    x: jax.Array,
    w_up: tuple[jax.Array, ...],
    w_down: jax.Array,
    pair_token: jax.Array,
    pair_weight: jax.Array,
    group_sizes: jax.Array,
    *,
    tile_up: Tile,
    tile_down: Tile,
    interpret: Any = False,
) -> jax.Array:
    """Both matmuls of the layer over (token, expert) pairs that are sorted by expert.

    Args:
        x: bfloat16 [T, H].
        w_up: gate and up, each [E, H, I], for SwiGLU; one matrix for squared ReLU.
        w_down: [E, I, H].
        pair_token: int32 [P], the token of each pair.
        pair_weight: float32 [P], the router's weight of each pair.
        group_sizes: int32 [E], summing to P.
        tile_up, tile_down: tiles of the two matmuls. Their type chooses the kernel: a BlockedTile that of the host.
        interpret: on the host, True for the host's kernel and ``pltpu.InterpretParams()`` for the TPU's.

    Returns:
        float32 [T, H].
    """
    if pair_token.shape[0] == 0:  # an expert-parallel rank that no token chose
        return jnp.zeros(x.shape, jnp.float32)
    hidden = _multiply(x[pair_token], w_up, group_sizes, up_op(gated=len(w_up) == 2), tile_up, interpret)
    rows = _multiply(hidden, (w_down,), group_sizes, "down", tile_down, interpret)
    scaled = rows.astype(jnp.float32) * pair_weight[:, None]
    return jnp.zeros(x.shape, jnp.float32).at[pair_token].add(scaled)


def _multiply(
    rows: jax.Array, weights: tuple[jax.Array, ...], group_sizes: jax.Array, op: Op, tile: Tile, interpret: Any
) -> jax.Array:
    if isinstance(tile, BlockedTile):
        return host_matmul(rows, weights, group_sizes, op=op, tile=tile, interpret=interpret)
    return grouped_mm(
        rows, weights, group_sizes, tile=tile, activation=ACTIVATION_OF[op], zero_rest=False, interpret=interpret
    )
