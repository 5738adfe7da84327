"""The grouped matmul as a function that JAX differentiates: its gradients are grouped matmuls too."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from moe_kernels.pallas.activation import activate
from moe_kernels.pallas.grouped_matmul.matmul import grouped_mm
from moe_kernels.pallas.weight_gradient import weight_gradient
from moe_kernels.tile import PallasTile


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5, 6))
def differentiable_mm(
    rows: jax.Array,
    weights: tuple[jax.Array, ...],
    group_sizes: jax.Array,
    tile: PallasTile,
    gradient_tile: PallasTile,
    activation: str = "none",
    interpret: Any = False,
) -> jax.Array:
    """As :func:`moe_kernels.pallas.grouped_matmul.matmul.grouped_mm`, for weights [G, K, N] of the rows' type.

    Args:
        rows, weights, group_sizes, tile, interpret: as there.
        gradient_tile: the tile of the gradients. The gradient to the weights takes tile_m rows per visit, and
            tile_k x tile_n of the weights per program.
        activation: as there. Its products are not kept for the backward pass, which computes them again, rounded to the
            rows' type.
    """
    return grouped_mm(rows, weights, group_sizes, tile=tile, activation=activation, interpret=interpret)


def _forward(
    rows: jax.Array,
    weights: tuple[jax.Array, ...],
    group_sizes: jax.Array,
    tile: PallasTile,
    gradient_tile: PallasTile,
    activation: str,
    interpret: Any,
) -> tuple[jax.Array, tuple[Any, ...]]:
    out = differentiable_mm(rows, weights, group_sizes, tile, gradient_tile, activation, interpret)
    return out, (rows, weights, group_sizes)


def _backward(
    tile: PallasTile,
    gradient_tile: PallasTile,
    activation: str,
    interpret: Any,
    kept: tuple[Any, ...],
    d_out: jax.Array,
) -> tuple[jax.Array, tuple[jax.Array, ...], np.ndarray]:
    rows, weights, group_sizes = kept
    if activation == "none":
        d_products = (d_out,)
    else:
        products = [
            grouped_mm(rows, (w,), group_sizes, tile=tile, interpret=interpret).astype(jnp.float32) for w in weights
        ]

        def result(*parts: jax.Array) -> jax.Array:
            return activate(parts[0], parts[1] if len(parts) > 1 else None, activation)

        _, slope = jax.vjp(result, *products)
        d_products = tuple(d.astype(rows.dtype) for d in slope(d_out.astype(jnp.float32)))
    d_rows = sum(
        grouped_mm(d, (w,), group_sizes, tile=gradient_tile, transposed=True, interpret=interpret).astype(jnp.float32)
        for d, w in zip(d_products, weights, strict=True)
    )
    d_weights = tuple(
        weight_gradient(rows, d, group_sizes, tile=gradient_tile, interpret=interpret) for d in d_products
    )
    return jnp.asarray(d_rows).astype(rows.dtype), d_weights, np.zeros(group_sizes.shape, jax.dtypes.float0)


differentiable_mm.defvjp(_forward, _backward)
