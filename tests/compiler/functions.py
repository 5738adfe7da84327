"""Functions that tests compile by name: kernels of our own, of another library, and bad ones."""

import os
import time

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.experimental.pallas.ops.tpu.megablox import gmm


def double(x: jax.Array) -> jax.Array:
    def kernel(x_ref: jax.Array, o_ref: jax.Array) -> None:
        o_ref[...] = x_ref[...] * 2.0

    return pl.pallas_call(kernel, out_shape=jax.ShapeDtypeStruct(x.shape, x.dtype), name="double")(x)


def megablox(rows: jax.Array, weights: jax.Array, sizes: jax.Array) -> jax.Array:
    return gmm(rows, weights, sizes, jnp.bfloat16, (128, 256, 256))


def large(x: jax.Array) -> jax.Array:
    """Takes more of a core's memory than there is, and is compiled at once: there is next to nothing to unroll."""

    def kernel(x_ref: jax.Array, o_ref: jax.Array, scratch: jax.Array) -> None:
        scratch[:8] = x_ref[...]
        o_ref[...] = scratch[:8]

    memory = [pltpu.VMEM((1 << 19, 128), x.dtype)]
    return pl.pallas_call(kernel, out_shape=jax.ShapeDtypeStruct(x.shape, x.dtype), scratch_shapes=memory)(x)


def hang(x: jax.Array) -> jax.Array:
    time.sleep(3600)
    return x


def abort(x: jax.Array) -> jax.Array:
    os.abort()
