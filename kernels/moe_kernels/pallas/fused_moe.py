"""The expert half of an MoE layer in JAX, on the Pallas grouped matmul."""

import functools

import jax
import jax.numpy as jnp

from moe_kernels.pallas.grouped_matmul import grouped_matmul
from moe_kernels.tile import PallasTile


@functools.partial(jax.jit, static_argnames=("tile_up", "tile_down", "interpret"))
def moe_experts(
    x: jax.Array,
    w_up: tuple[jax.Array, ...],
    w_down: jax.Array,
    pair_token: jax.Array,
    pair_weight: jax.Array,
    group_sizes: jax.Array,
    *,
    tile_up: PallasTile,
    tile_down: PallasTile,
    interpret: bool = False,
) -> jax.Array:
    """Both matmuls of the layer over (token, expert) pairs sorted by expert.

    Args:
        x: bfloat16 [T, H].
        w_up: (gate, up), each [E, H, I], for SwiGLU; one of them for squared ReLU.
        w_down: [E, I, H].
        pair_token: int32 [P] token of each pair.
        pair_weight: float32 [P] router weight of each pair.
        group_sizes: int32 [E], summing to P.
        tile_up, tile_down: tiles of the two matmuls.
        interpret: compile for the host through XLA instead of for a TPU.

    Returns:
        float32 [T, H].
    """
    if pair_token.shape[0] == 0:  # an expert-parallel rank that no token chose
        return jnp.zeros(x.shape, jnp.float32)
    hidden = grouped_matmul(
        x[pair_token],
        w_up,
        group_sizes,
        op="gate_up" if len(w_up) == 2 else "up",
        tile=tile_up,
        interpret=interpret,
    )
    rows = grouped_matmul(hidden, (w_down,), group_sizes, op="down", tile=tile_down, interpret=interpret)
    scaled = rows.astype(jnp.float32) * pair_weight[:, None]
    return jnp.zeros(x.shape, jnp.float32).at[pair_token].add(scaled)
