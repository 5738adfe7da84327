"""Functions that tests compile by name: kernels of our own, of another library, and bad ones."""

import os
import time

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas.ops.tpu.megablox import gmm


def double(x: jax.Array) -> jax.Array:
    def kernel(x_ref: jax.Array, o_ref: jax.Array) -> None:
        o_ref[...] = x_ref[...] * 2.0

    return pl.pallas_call(kernel, out_shape=jax.ShapeDtypeStruct(x.shape, x.dtype), name="double")(x)


def megablox(rows: jax.Array, weights: jax.Array, sizes: jax.Array) -> jax.Array:
    return gmm(rows, weights, sizes, jnp.bfloat16, (128, 256, 256))


def large(a: jax.Array, b: jax.Array) -> jax.Array:
    def kernel(a_ref: jax.Array, b_ref: jax.Array, o_ref: jax.Array) -> None:
        o_ref[...] = jnp.dot(a_ref[...], b_ref[...], preferred_element_type=jnp.float32)

    return pl.pallas_call(kernel, out_shape=jax.ShapeDtypeStruct((a.shape[0], b.shape[1]), jnp.float32))(a, b)


def hang(x: jax.Array) -> jax.Array:
    time.sleep(3600)
    return x


def abort(x: jax.Array) -> jax.Array:
    os.abort()
