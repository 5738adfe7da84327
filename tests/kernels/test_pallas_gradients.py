"""Gradients of the TPU's grouped matmul: against float64, and against differences of the function itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from moe_kernels import reference
from moe_kernels.pallas.autodiff import differentiable_mm
from moe_kernels.pallas.weight_gradient import weight_gradient
from moe_kernels.tile import PallasTile
from tests.kernels.tpu_interpreter import INTERPRET, cut, f64, no_race, random

TILE = PallasTile(tile_m=32, tile_k=128, tile_n=128, bucket_m=16)
TOLERANCE = {jnp.bfloat16: 2**-8 * 6, jnp.float32: 1e-4}
"""Error of an element over its matrix' largest: operands are exact, sums are float32, only the result rounds (bfloat16
by 2**-8 of itself)."""


def expected_gradient(left: np.ndarray, right: np.ndarray, sizes: list[int]) -> np.ndarray:
    ends = np.cumsum(sizes)
    return np.stack([left[e - s : e].T @ right[e - s : e] for s, e in zip(sizes, ends, strict=True)])


def check_weights(sizes: list[int], k: int, n: int, *, rows: int, dtype: type = jnp.bfloat16, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    left, right = random(rng, rows, k, dtype=dtype), random(rng, rows, n, dtype=dtype)
    # What lies past the groups must not matter.
    left, right = (a.at[sum(sizes) :].set(jnp.nan) for a in (left, right))
    out = weight_gradient(left, right, jnp.asarray(sizes, jnp.int32), tile=TILE, interpret=INTERPRET)
    expected = expected_gradient(f64(left), f64(right), sizes)
    for actual, one in zip(f64(out), expected, strict=True):
        assert np.abs(actual - one).max() <= TOLERANCE[dtype] * max(np.abs(one).max(), 0.0)
    assert no_race()


@pytest.mark.parametrize(
    ("sizes", "k", "n", "spare", "dtype"),
    [
        ([16, 16, 32], 128, 128, 0, jnp.float32),
        ([3, 0, 29, 1, 50, 0, 0, 5], 256, 384, 0, jnp.bfloat16),
        ([3, 0, 29, 1, 50, 0, 0, 5], 200, 320, 13, jnp.float32),
        ([0, 0, 0], 128, 128, 5, jnp.bfloat16),
        ([1], 128, 136, 0, jnp.bfloat16),
        ([0, 70], 704, 72, 0, jnp.float32),
    ],
)
def test_gradient_of_weights(sizes: list[int], k: int, n: int, spare: int, dtype: type) -> None:
    check_weights(sizes, k, n, rows=sum(sizes) + spare, dtype=dtype)


@settings(deadline=None, max_examples=25)
@given(
    sizes=st.lists(st.integers(0, 50), min_size=6, max_size=6), rows=st.sampled_from((120, 125)), seed=st.integers(0, 3)
)
def test_gradient_of_weights_of_any_groups(sizes: list[int], rows: int, seed: int) -> None:
    check_weights(cut(sizes, rows), 128, 128, rows=rows, seed=seed)


@pytest.mark.parametrize("activation", ["swiglu", pytest.param("relu2", marks=pytest.mark.slow)])
def test_jax_differentiates_it(activation: str) -> None:
    rng = np.random.default_rng(0)
    sizes = jnp.asarray([5, 0, 19, 8], jnp.int32)
    rows = random(rng, 32, 136, dtype=jnp.float32)
    weights = tuple(random(rng, 4, 136, 72, dtype=jnp.float32) for _ in range(2 if activation == "swiglu" else 1))

    def function(rows: jnp.ndarray, weights: tuple[jnp.ndarray, ...]) -> jnp.ndarray:
        return differentiable_mm(rows, weights, sizes, TILE, TILE, activation, INTERPRET)

    check_grads(function, (rows, weights), order=1, modes=["rev"], atol=2e-2, rtol=2e-2)


def test_gradients_match_float64() -> None:
    rng = np.random.default_rng(0)
    sizes = [5, 0, 19, 8]
    rows, weight = random(rng, 40, 264), random(rng, 4, 264, 128)
    d_out = random(rng, 40, 128)

    def function(rows: jnp.ndarray, weight: jnp.ndarray) -> jnp.ndarray:
        return differentiable_mm(rows, (weight,), jnp.asarray(sizes, jnp.int32), TILE, TILE, "none", INTERPRET)

    out, slope = jax.vjp(function, rows, weight)
    d_rows, d_weight = slope(d_out)
    assert not f64(out)[32:].any()
    by_rows = reference.grouped_gemm(f64(d_out), f64(weight).swapaxes(1, 2), np.array(sizes))
    assert reference.row_error(f64(d_rows), by_rows) <= reference.OUTPUT_TOLERANCE["bfloat16"]
    by_weight = expected_gradient(f64(rows), f64(d_out), sizes)
    assert np.abs(f64(d_weight) - by_weight).max() <= TOLERANCE[jnp.bfloat16] * np.abs(by_weight).max()
    # A boundary one row off is far outside of it.
    shifted = expected_gradient(f64(rows), f64(d_out), [6, 0, 18, 8])
    assert np.abs(shifted - by_weight).max() > 10 * TOLERANCE[jnp.bfloat16] * np.abs(by_weight).max()
