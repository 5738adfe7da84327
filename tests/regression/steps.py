"""A JAX function under test: a good one, in which tests plant faults by changing this text."""

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl


def step(x: jax.Array, w: jax.Array) -> jax.Array:
    def kernel(x_ref: jax.Array, w_ref: jax.Array, o_ref: jax.Array) -> None:
        y = jnp.dot(x_ref[...], w_ref[...], preferred_element_type=jnp.float32)
        o_ref[...] = y.astype(jnp.bfloat16)

    rows, columns = x.shape[0], w.shape[1]
    return pl.pallas_call(
        kernel,
        grid=(rows // 256,),
        in_specs=[pl.BlockSpec((256, x.shape[1]), lambda i: (i, 0)), pl.BlockSpec(w.shape, lambda i: (0, 0))],
        out_specs=pl.BlockSpec((256, columns), lambda i: (i, 0)),
        out_shape=jax.ShapeDtypeStruct((rows, columns), jnp.bfloat16),
        name="step",
    )(x, w)
