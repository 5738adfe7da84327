"""8-bit weights for the TPU's grouped matmul, with one float32 scale per column or per block."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

TYPES = {"int8": jnp.int8, "fp8": jnp.float8_e4m3fn}


class Quantized(NamedTuple):
    """Values [G, K, N] and scales [1, G, blocks of K, 1, N]; a weight is its value times its scale.

    For gate and up, concatenate the two scales along the first axis.
    """

    values: jax.Array
    scale: jax.Array


def quantize_weights(weights: jax.Array, dtype: str, *, block: int | None = None) -> Quantized:
    """Round weights to 8 bits.

    Args:
        weights: [G, K, N].
        dtype: ``int8`` or ``fp8`` (e4m3).
        block: one scale per ``block`` x ``block`` weights; by default one per column.

    Raises:
        ValueError: the type is unknown, or K or N is not a multiple of the block.
    """
    if dtype not in TYPES:
        raise ValueError(f"dtype = {dtype!r}; use one of {', '.join(TYPES)}")
    groups, k, n = weights.shape
    if block is not None and (k % block or n % block):
        raise ValueError(f"weights of {k} x {n} are not multiples of {block}; use one scale per column")
    most = 127.0 if dtype == "int8" else float(jnp.finfo(jnp.float8_e4m3fn).max)
    wide = weights.astype(jnp.float32)
    if block is None:
        scale = jnp.max(jnp.abs(wide), axis=1)[:, None, :] / most  # [G, 1, N]
    else:
        tiles = jnp.abs(wide).reshape(groups, k // block, block, n // block, block)
        scale = jnp.repeat(jnp.max(tiles, axis=(2, 4)) / most, block, axis=2)  # [G, K / block, N]
    scale = jnp.maximum(scale, jnp.finfo(jnp.float32).tiny)
    scaled = wide / jnp.repeat(scale, k // scale.shape[1], axis=1)
    values = jnp.round(scaled) if dtype == "int8" else scaled
    return Quantized(values.astype(TYPES[dtype]), scale[None, :, :, None, :])
