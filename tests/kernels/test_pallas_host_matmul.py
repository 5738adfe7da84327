"""Numerics of the host's Pallas kernel against float64, in interpret mode."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_kernels import reference
from moe_kernels.kernel import Op
from moe_kernels.pallas.host_matmul.matmul import host_matmul, plan_visits, visit_bound
from moe_kernels.pallas.layer import moe_experts
from moe_kernels.reference import BF16_TOLERANCE
from moe_kernels.tile import BlockedTile
from tests.kernels.tpu_interpreter import cut

jit_plan = jax.jit(plan_visits, static_argnums=(1, 2))
TILE = BlockedTile(tile_m=16, tile_k=128, tile_n=128)


def bf16(rng: np.random.Generator, *shape: int) -> jnp.ndarray:
    return jnp.asarray(rng.standard_normal(shape) / shape[-2] ** 0.5, jnp.bfloat16)


def f64(array: jnp.ndarray) -> np.ndarray:
    return np.asarray(array, np.float64)


@pytest.mark.parametrize(
    ("op", "sizes", "k", "n"),
    [
        ("down", [16, 16, 32], 128, 128),
        ("gate_up", [3, 0, 29, 1], 256, 128),
        ("up", [0, 0, 40, 0], 128, 256),
        *((op, [7, 9, 5, 11, 0, 30], 200, 136) for op in ("gate_up", "up", "down")),
        ("gate_up", [1], 128, 128),
        ("down", [0, 1, 0], 384, 128),
    ],
)
def test_matches_float64(op: Op, sizes: list[int], k: int, n: int) -> None:
    rng = np.random.default_rng(0)
    lhs = bf16(rng, sum(sizes), k) * 8
    weights = tuple(bf16(rng, len(sizes), k, n) for _ in range(2 if op == "gate_up" else 1))
    out = host_matmul(lhs, weights, jnp.asarray(sizes), op=op, tile=TILE, interpret=True)
    products = [reference.grouped_gemm(f64(lhs), f64(w), np.array(sizes)) for w in weights]
    if op == "gate_up":
        expected = reference.activate(products[0], products[1])
    else:
        expected = reference.activate(products[0], None) if op == "up" else products[0]
    assert reference.row_error(f64(out), expected) <= BF16_TOLERANCE


@settings(deadline=None, max_examples=15)
@given(sizes=st.lists(st.integers(0, 20), min_size=5, max_size=5).filter(lambda s: sum(s) > 0), seed=st.integers(0, 3))
def test_any_group_sizes(sizes: list[int], seed: int) -> None:
    # The kernel's groups make up all rows.
    sizes = cut(sizes, 64)
    sizes[-1] += 64 - sum(sizes)
    rng = np.random.default_rng(seed)
    lhs, weight = bf16(rng, sum(sizes), 128), bf16(rng, 5, 128, 128)
    out = host_matmul(lhs, (weight,), jnp.asarray(sizes), op="down", tile=TILE, interpret=True)
    expected = reference.grouped_gemm(f64(lhs), f64(weight), np.array(sizes))
    assert reference.row_error(f64(out), expected) <= BF16_TOLERANCE


@settings(deadline=None, max_examples=100)
@given(sizes=st.lists(st.integers(0, 40), min_size=12, max_size=12))
def test_visits_cover_each_row_once(sizes: list[int]) -> None:
    sizes = cut(sizes, 200)
    sizes[-1] += 200 - sum(sizes)
    group, row_tile, offsets, count = (np.asarray(a) for a in jit_plan(jnp.asarray(sizes), 200, 16))
    assert count[0] <= len(group) == visit_bound(sum(sizes), len(sizes), 16)
    covered = []
    for g, t in zip(group[: count[0]], row_tile[: count[0]], strict=True):
        covered += [r for r in range(16 * t, 16 * t + 16) if offsets[g] <= r < offsets[g + 1]]
    assert covered == list(range(sum(sizes)))
    assert (np.diff(row_tile) >= 0).all(), "a row tile's visits are consecutive: its block stays in VMEM"


@settings(deadline=None, max_examples=300)
@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=12).filter(lambda s: sum(s) > 0),
    tile_m=st.sampled_from((8, 16, 48)),
)
def test_the_bound_of_visits_holds_them_all(sizes: list[int], tile_m: int) -> None:
    ends = np.cumsum(sizes)
    visits = sum(
        (end - 1) // tile_m - (end - size) // tile_m + 1 for end, size in zip(ends, sizes, strict=True) if size
    )
    assert visits <= visit_bound(sum(sizes), len(sizes), tile_m)


@pytest.mark.parametrize("gated", [True, False])
def test_the_layer_matches_float64(gated: bool) -> None:
    rng = np.random.default_rng(1)
    tokens, H, width, sizes = 24, 200, 136, np.array([5, 0, 24, 11])
    token = np.concatenate([rng.permutation(tokens)[:s] for s in sizes]).astype(np.int32)
    weight = rng.random(len(token)).astype(np.float32)
    x, down = bf16(rng, tokens, H) * 5, bf16(rng, 4, width, H)
    up = tuple(bf16(rng, 4, H, width) for _ in range(2 if gated else 1))
    out = moe_experts(
        x, up, down, jnp.asarray(token), jnp.asarray(weight), jnp.asarray(sizes), tile_up=TILE, tile_down=TILE,
        interpret=True,
    )  # fmt: skip
    expected = reference.moe_experts(
        f64(x), f64(up[0]), f64(up[1]) if gated else None, f64(down), token, weight.astype(np.float64), sizes
    )
    assert reference.row_error(f64(out), expected) <= BF16_TOLERANCE


def test_a_rank_without_rows_writes_zeros() -> None:
    rng = np.random.default_rng(1)
    up, down = (bf16(rng, 2, 128, 128),), bf16(rng, 2, 128, 128)
    none = jnp.zeros(0)
    out = moe_experts(
        bf16(rng, 4, 128), up, down, none.astype(jnp.int32), none, jnp.zeros(2, jnp.int32), tile_up=TILE,
        tile_down=TILE, interpret=True,
    )  # fmt: skip
    assert out.shape == (4, 128)
    assert not np.asarray(out).any()


def test_row_error_sees_nan_and_dirt_in_empty_rows() -> None:
    zeros = np.zeros((2, 4))
    assert reference.row_error(zeros, zeros) == 0
    assert reference.row_error(zeros + 1e-3, zeros) > 1
    assert not reference.row_error(np.full((1, 4), np.nan), np.ones((1, 4))) <= BF16_TOLERANCE


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"lhs": (64, 64)}, "differ in K"),
        ({"lhs": (64,)}, "should be [M, K]"),
        ({"weights": ((3, 128, 128), (3, 128, 128))}, "takes a tuple of 1 weights, not 2"),
        ({"weights": ((3, 128),)}, "[G, K, N]"),
        ({"weights": ((3, 128, 128), (3, 128, 64)), "op": "gate_up"}, "differ; give two of a kind"),
        ({"sizes": [60, 4]}, "should be whole numbers (3,)"),
        ({"sizes": [40, 24, 1]}, "sum to 65, the least is 1; give sizes of 0 or more that sum to the 64 rows"),
        ({"sizes": [40, 20, 0]}, "sum to 60"),
        ({"sizes": [70, -6, 0]}, "the least is -6"),
        ({"dtype": jnp.float32}, "give bfloat16"),
    ],
)
def test_operands_that_do_not_fit_are_refused(changed: dict[str, Any], says: str) -> None:
    given = {"lhs": (64, 128), "weights": ((3, 128, 128),), "sizes": [40, 24, 0], "dtype": jnp.bfloat16} | changed
    weights = tuple(jnp.zeros(shape, given["dtype"]) for shape in given["weights"])
    with pytest.raises(ValueError, match=re.escape(says)):
        host_matmul(
            jnp.zeros(given["lhs"], given["dtype"]), weights, jnp.asarray(given["sizes"]), op=given.get("op", "down"),
            tile=TILE, interpret=True,
        )  # fmt: skip
