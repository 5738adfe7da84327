"""Kernels under test: good ones, in which tests plant faults by changing this text."""

import jax
import jax.numpy as jnp
import triton
import triton.language as tl
from jax.experimental import pallas as pl


@triton.jit
def matmul(
    a_ptr, b_ptr, c_ptr, M, N, K, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr = "tf32",
):  # fmt: skip
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    cols = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    ks = tl.arange(0, BLOCK_K)
    acc = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for k in range(0, K, BLOCK_K):
        limit = K
        ok = ks < limit - k
        a = tl.load(a_ptr + rows[:, None] * K + (k + ks)[None, :], mask=ok[None, :], other=0.0)
        b = tl.load(b_ptr + cols[None, :] * K + (k + ks)[:, None], mask=ok[:, None], other=0.0)
        acc = tl.dot(a, b, acc, input_precision=PRECISION)
    tl.store(c_ptr + rows[:, None] * N + cols[None, :], acc.to(c_ptr.dtype.element_ty))


def step(x: jax.Array, w: jax.Array) -> jax.Array:
    def kernel(x_ref: jax.Array, w_ref: jax.Array, o_ref: jax.Array) -> None:
        y = jnp.dot(x_ref[...], w_ref[...], preferred_element_type=jnp.float32)
        o_ref[...] = y.astype(jnp.bfloat16)  # type: ignore[index]

    rows, columns = x.shape[0], w.shape[1]
    return pl.pallas_call(
        kernel,
        grid=(rows // 256,),
        in_specs=[pl.BlockSpec((256, x.shape[1]), lambda i: (i, 0)), pl.BlockSpec(w.shape, lambda i: (0, 0))],
        out_specs=pl.BlockSpec((256, columns), lambda i: (i, 0)),
        out_shape=jax.ShapeDtypeStruct((rows, columns), jnp.bfloat16),
        name="step",
    )(x, w)
