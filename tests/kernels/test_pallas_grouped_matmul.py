"""Numerics of the TPU's grouped matmul against float64."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.experimental.pallas import tpu as pltpu

from moe_kernels import reference
from moe_kernels.pallas.activation import GATED
from moe_kernels.pallas.grouped_matmul.matmul import grouped_mm
from moe_kernels.pallas.layer import moe_experts
from moe_kernels.pallas.quantize import quantize_weights
from moe_kernels.pallas.visits import plan_visits, visit_bound
from moe_kernels.reference import BF16_TOLERANCE, OUTPUT_TOLERANCE
from moe_kernels.tile import SUBLANES, PallasTile
from tests.kernels.tpu_interpreter import INTERPRET, cut, f64, no_race, random
from tests.pairs import covering

jit_plan = jax.jit(plan_visits, static_argnums=(1, 2))
TILE = PallasTile(tile_m=32, tile_k=256, tile_n=128, bucket_m=16)
F32_TOLERANCE = 1e-4
"""float32 products and sums over K of at most 2880: 2**-24 sqrt(K) of a row's rms is 3e-6; 30 times that for the
largest of many and for an activation's slope. A dropped step or row changes an element by a good part of its rms."""
TOLERANCE = {jnp.bfloat16: OUTPUT_TOLERANCE["bfloat16"], jnp.float32: F32_TOLERANCE}


def check(
    sizes: list[int],
    k: int,
    n: int,
    tile: PallasTile,
    *,
    rows: int | None = None,
    activation: str = "none",
    transposed: bool = False,
    dtype: type = jnp.bfloat16,
    seed: int = 0,
) -> None:
    rng = np.random.default_rng(seed)
    # The clamps of swiglu_oai are at 7: so wide that many products meet them.
    spread = 5.0 if activation == "swiglu_oai" else 1.0
    lhs = random(rng, rows or sum(sizes), k, dtype=dtype) * jnp.asarray(spread, dtype)
    weights = tuple(random(rng, len(sizes), k, n, dtype=dtype) for _ in range(2 if activation in GATED else 1))
    given_weights = tuple(w.swapaxes(1, 2) for w in weights) if transposed else weights
    out = grouped_mm(
        lhs, given_weights, jnp.asarray(sizes, jnp.int32), tile=tile, activation=activation, transposed=transposed,
        interpret=INTERPRET,
    )  # fmt: skip
    products = [reference.grouped_gemm(f64(lhs), f64(w), np.array(sizes)) for w in weights]
    expected = reference.activate(products[0], products[1] if len(products) > 1 else None, activation)
    expected[sum(sizes) :] = 0.0
    assert reference.row_error(f64(out), expected) <= TOLERANCE[dtype]
    assert no_race()


ROWS, GROUPS = 91, 11
SITUATIONS = {
    "whole tiles": [32, 32],
    "boundaries inside a block of eight": [3, 2, 1, 29, 1, 50, 2],
    "empty groups": [0, 0, 40, 0, 0, 7, 0],
    "one group has all": [0, ROWS, 0],
    "all rows, in many groups": [7, 9, 5, 11, 0, 30, 0, 0, 28, 1],
    "one row": [0, 1, 0],
    "one row a group": [1] * GROUPS,
    "no rows at all": [],
}


@pytest.mark.parametrize("rows_outer", [False, True], ids=["weights stay", "rows stay"])
@pytest.mark.parametrize("situation", SITUATIONS)
def test_matches_float64(situation: str, rows_outer: bool) -> None:
    sizes = SITUATIONS[situation] + [0] * (GROUPS - len(SITUATIONS[situation]))
    assert sum(sizes) <= ROWS
    # Weights stay only where the whole depth is one step; rows stay over any number of steps and columns.
    k, n = (512, 128) if rows_outer else (256, 384)
    check(sizes, k, n, dataclasses.replace(TILE, rows_outer=rows_outer), rows=ROWS)


@pytest.mark.parametrize("rows_outer", [False, True], ids=["weights stay", "rows stay"])
@pytest.mark.parametrize(
    ("sizes", "rows", "k", "n"),
    [
        pytest.param([7, 9, 5, 11, 0, 30], 62, 720, 320, id="K and N in tiles and a tail"),
        pytest.param([20, 13], 33, 200, 72, id="K and N below a tile"),
        pytest.param([0, 1, 0], 5, 384, 128, id="fewer rows than a block of eight"),
    ],
)
def test_remainders(sizes: list[int], rows: int, k: int, n: int, rows_outer: bool) -> None:
    check(sizes, k, n, dataclasses.replace(TILE, rows_outer=rows_outer), rows=rows)


@pytest.mark.parametrize(
    ("activation", "dtype", "tile_k"),
    covering(
        ("swiglu", "geglu_tanh", "swiglu_oai", "relu2", "silu", "none"), (jnp.bfloat16, jnp.float32), (128, 16384)
    ),
)
def test_activations(activation: str, dtype: type, tile_k: int) -> None:
    check([3, 0, 29, 13], 352, 200, dataclasses.replace(TILE, tile_k=tile_k), activation=activation, dtype=dtype)


@pytest.mark.parametrize(
    ("fields", "transposed"),
    [
        ({"weight_buffers": 2}, False),
        ({"weight_buffers": 5, "row_buffers": 4}, True),
        ({"cores": 2}, True),
        ({"cores": 2, "rows_outer": True}, False),
        ({"tile_m": 128, "bucket_m": 32}, True),
        ({"tile_m": 48, "bucket_m": 32}, False),
        ({"tile_k": 16384, "tile_n": 16384}, True),
        ({"tile_k": 16384, "rows_outer": True}, False),
        ({"tile_k": 16384}, True),
    ],
)
def test_every_tile_field_and_transposed_weights(fields: dict[str, int], transposed: bool) -> None:
    tile = dataclasses.replace(TILE, **fields)  # type: ignore[arg-type]
    check([3, 0, 61, 1, 50, 0, 9], 520, 256, tile, transposed=transposed)


@pytest.mark.parametrize(
    ("tile_m", "bucket_m", "tile_k"),
    [(112, 16, 128), (112, 16, 16384), pytest.param(896, 128, 16384, marks=pytest.mark.slow)],
)
def test_every_number_of_buckets_that_a_visit_can_have(tile_m: int, bucket_m: int, tile_k: int) -> None:
    tile = PallasTile(tile_m=tile_m, tile_k=tile_k, tile_n=128, bucket_m=bucket_m)
    assert (tile.buckets, tile.stretches) == (7, (4, 2, 1))
    sizes = [min(bucket_m * count - 8, tile_m) for count in range(1, 8)]
    plan = plan_visits(jnp.asarray(sizes, jnp.int32), sum(sizes), tile_m)
    rows = np.asarray(plan.end - plan.first)[: int(plan.counts[0])]
    assert set(-(-rows // bucket_m)) == set(range(1, 8))
    check(sizes, 200, 136, tile)


@pytest.mark.slow
@pytest.mark.parametrize(("k", "n", "tile_k"), [(2880, 704, 1024), (704, 2880, 16384), (1408, 768, 1024)])
def test_sizes_that_no_tile_divides(k: int, n: int, tile_k: int) -> None:
    check([30, 0, 5], k, n, PallasTile(tile_m=32, tile_k=tile_k, tile_n=512, bucket_m=16))


@settings(deadline=None, max_examples=40)
@given(
    sizes=st.lists(st.integers(0, 40), min_size=7, max_size=7),
    form=st.sampled_from(((16, False), (16, True), (64, False), (64, True))),
    seed=st.integers(0, 3),
)
def test_any_group_sizes(sizes: list[int], form: tuple[int, bool], seed: int) -> None:
    tile = dataclasses.replace(TILE, tile_m=form[0], rows_outer=form[1], tile_k=128)
    check(cut(sizes, 120), 136, 128, tile, rows=120, seed=seed)


@settings(deadline=None, max_examples=100)
@given(sizes=st.lists(st.integers(0, 70), min_size=12, max_size=12), tile_m=st.sampled_from((8, 16, 48)))
def test_visits_cover_each_row_once(sizes: list[int], tile_m: int) -> None:
    rows = 301
    sizes = cut(sizes, rows)
    visits = jit_plan(jnp.asarray(sizes, jnp.int32), rows, tile_m)
    group, first, begin, end, rank, active, (count, with_rows) = (np.asarray(a) for a in visits)
    assert count <= len(group) == visit_bound(rows, len(sizes), tile_m)
    assert list(active[:with_rows]) == [g for g, size in enumerate(sizes) if size]
    covered = []
    for v in range(count):
        assert first[v] % SUBLANES == 0
        assert first[v] <= begin[v] < end[v] <= first[v] + tile_m
        assert active[rank[v]] == group[v]
        covered += [(group[v], row) for row in range(begin[v], end[v])]
    owners = np.repeat(np.arange(len(sizes)), sizes)
    assert covered == list(zip(owners, range(sum(sizes)), strict=True))


@settings(deadline=None, max_examples=300)
@given(sizes=st.lists(st.integers(0, 70), min_size=1, max_size=12), tile_m=st.sampled_from((8, 16, 48)))
def test_the_bound_of_visits_holds_them_all(sizes: list[int], tile_m: int) -> None:
    ends = np.cumsum(sizes)
    base = (ends - sizes) // SUBLANES * SUBLANES
    visits = sum(-(-(end - start) // tile_m) for start, end, size in zip(base, ends, sizes, strict=True) if size)
    assert visits <= visit_bound(max(sum(sizes), 1), len(sizes), tile_m)


@pytest.mark.parametrize(
    ("dtype", "block", "tile_k", "gated"), covering(("int8", "fp8"), (None, 128), (256, 16384), (True, False))
)
def test_eight_bit_weights(dtype: str, block: int | None, tile_k: int, gated: bool) -> None:
    rng = np.random.default_rng(0)
    sizes, k, n = [3, 0, 29, 1, 50, 0, 0, 5], 512, 256
    exact = [random(rng, len(sizes), k, n, dtype=jnp.float32) for _ in range(2 if gated else 1)]
    rounded = [quantize_weights(w, dtype, block=block) for w in exact]
    lhs = random(rng, sum(sizes), k)
    out = grouped_mm(
        lhs, tuple(q.values for q in rounded), jnp.asarray(sizes), tile=dataclasses.replace(TILE, tile_k=tile_k),
        activation="swiglu" if gated else "none", scale=jnp.concatenate([q.scale for q in rounded]),
        interpret=INTERPRET,
    )  # fmt: skip
    wide = [f64(q.values) * np.repeat(f64(q.scale[0, :, :, 0]), k // q.scale.shape[2], axis=1) for q in rounded]
    for weight, one in zip(exact, wide, strict=True):
        # A step of int8 is 1/127 of the largest; e4m3 keeps 2**-4 of each value, and less near zero.
        assert np.abs(one - f64(weight)).max() <= np.abs(f64(weight)).max() * (1 / 127 if dtype == "int8" else 2**-4)
    products = [reference.grouped_gemm(f64(lhs), w, np.array(sizes)) for w in wide]
    expected = reference.activate(products[0], products[1]) if gated else products[0]
    assert reference.row_error(f64(out), expected) <= OUTPUT_TOLERANCE["bfloat16"]
    assert no_race()


def test_the_tolerance_catches_faults() -> None:
    rng = np.random.default_rng(0)
    sizes, k, n = np.array([20, 0, 13, 31]), 512, 256
    lhs, weight = f64(random(rng, sizes.sum(), k)), f64(random(rng, len(sizes), k, n))
    right = reference.grouped_gemm(lhs, weight, sizes)
    swapped = right.copy()
    swapped[20:21] = lhs[20:21] @ weight[0]  # the first row of a group, by the group before it
    faults = {
        "a scale": right * 1.125,
        "a tail of K": reference.grouped_gemm(lhs[:, :-8], weight[:, :-8], sizes),
        "a row across a boundary": swapped,
        "a last row": np.concatenate([right[:-1], np.zeros((1, n))]),
    }
    for dtype, tolerance in TOLERANCE.items():
        assert reference.row_error(f64(jnp.asarray(right, dtype)), right) <= tolerance
        for name, wrong in faults.items():
            assert not reference.row_error(wrong, right) <= tolerance, (name, dtype)


def test_wrong_use_is_an_error() -> None:
    rng = np.random.default_rng(0)
    lhs, weight, sizes = random(rng, 8, 256), random(rng, 2, 256, 128), jnp.asarray([4, 4])
    with pytest.raises(ValueError, match="takes 2 weights, not 1"):
        grouped_mm(lhs, (weight,), sizes, tile=TILE, activation="swiglu", interpret=INTERPRET)
    with pytest.raises(ValueError, match="multiple of 16"):
        grouped_mm(lhs, (weight,), sizes, tile=dataclasses.replace(TILE, tile_m=24), interpret=INTERPRET)
    narrow = quantize_weights(random(rng, 2, 256, 256), "int8", block=128)
    with pytest.raises(ValueError, match="one scale per column"):
        grouped_mm(
            lhs, (narrow.values,), sizes, tile=TILE, transposed=True, scale=narrow.scale, interpret=INTERPRET
        )  # fmt: skip
    with pytest.raises(ValueError, match="int4"):
        quantize_weights(weight, "int4")
    with pytest.raises(ValueError, match="multiples of 96"):
        quantize_weights(weight, "int8", block=96)


def zeros(*shape: int, dtype: Any = jnp.bfloat16) -> jax.Array:
    return jnp.zeros(shape, dtype)


SCALE = zeros(1, 2, 1, 1, 128, dtype=jnp.float32)
BAD: dict[str, tuple[str, dict[str, Any]]] = {
    "K of the weights": (r"differ in K: 256 and 128", {"weights": (zeros(2, 128, 128),)}),
    "K of transposed weights": (r"differ in K: 256 and 128", {"weights": (zeros(2, 256, 128),), "transposed": True}),
    "more groups than weights": (r"group_sizes \(8,\).*\(2,\)", {"group_sizes": jnp.full(8, 2)}),
    "fewer groups than weights": (r"group_sizes \(1,\).*\(2,\)", {"group_sizes": jnp.full(1, 2)}),
    "sizes that are no whole numbers": (r"float32 should be whole", {"group_sizes": jnp.ones(2)}),
    "gate and up of different N": (
        r"gate and up differ: \(2, 256, 128\) bfloat16, \(2, 256, 64\) bfloat16",
        {"weights": (zeros(2, 256, 128), zeros(2, 256, 64)), "activation": "swiglu"},
    ),
    "no tuple": (r"should be a tuple", {"weights": zeros(2, 256, 128)}),
    "a matrix for all": (r"should be \[M, K\] and \[G, K, N\]", {"weights": (zeros(256, 128),)}),
    "int8 without its scale": (r"int8, which need their scale", {"weights": (zeros(2, 256, 128, dtype=jnp.int8),)}),
    "fp8 without its scale": (
        r"float8_e4m3fn, which need their scale",
        {"weights": (zeros(2, 256, 128, dtype=jnp.float8_e4m3fn),)},
    ),
    "a scale of 16-bit weights": (r"bfloat16, which take no scale", {"scale": SCALE}),
    "a scale of fewer groups": (
        r"scale \(1, 1, 1, 1, 128\) float32 should be float32 \(1, 2, ",
        {"weights": (zeros(2, 256, 128, dtype=jnp.int8),), "scale": SCALE[:, :1]},
    ),
    "a scale of one matrix of two": (
        r"should be float32 \(2, 2, ",
        {"weights": (zeros(2, 256, 128, dtype=jnp.int8),) * 2, "scale": SCALE, "activation": "swiglu"},
    ),
    "blocks of a scale that do not divide K": (
        r"blocks of K = 256",
        {"weights": (zeros(2, 256, 128, dtype=jnp.int8),), "scale": zeros(1, 2, 3, 1, 128, dtype=jnp.float32)},
    ),
    "another type than the rows'": (
        r"float32 and rows are bfloat16",
        {"weights": (zeros(2, 256, 128, dtype=jnp.float32),)},
    ),
    "rows that the chip cannot multiply": (
        r"rows are float16",
        {"rows": zeros(16, 256, dtype=jnp.float16), "weights": (zeros(2, 256, 128, dtype=jnp.float16),)},
    ),
    "more rows than there are": (r"sum to 40, the least is 0; .*the 16 rows", {"group_sizes": jnp.full(2, 20)}),
    "a negative size": (r"sum to 16, the least is -4", {"group_sizes": jnp.asarray([20, -4])}),
    "a sum beyond 32 bits": (r"sum to 4294967294", {"group_sizes": np.full(2, 2**31 - 1)}),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_an_error_of_one_line(name: str) -> None:
    told, change = BAD[name]
    call = {"rows": zeros(16, 256), "weights": (zeros(2, 256, 128),), "group_sizes": jnp.full(2, 8)} | change
    with pytest.raises(ValueError, match=told) as error:
        grouped_mm(**call, tile=TILE, interpret=INTERPRET)
    assert "\n" not in str(error.value)


def test_sizes_that_only_the_device_knows_are_cut_to_the_rows() -> None:
    rng = np.random.default_rng(0)
    lhs, weight = random(rng, 24, 256), random(rng, 3, 256, 128)
    traced = jax.jit(lambda s: grouped_mm(lhs, (weight,), s, tile=TILE, interpret=INTERPRET))
    for sizes in ([20, 0, 300], [2**31 - 1, 2**31 - 1, 5], [9, -7, 12], [0, 0, 0]):
        ends = np.minimum(np.cumsum(np.maximum(np.asarray(sizes, np.int64), 0)), 24)
        expected = reference.grouped_gemm(f64(lhs), f64(weight), np.diff(ends, prepend=0))
        out = traced(jnp.asarray(sizes, jnp.int32))
        assert reference.row_error(f64(out), expected) <= OUTPUT_TOLERANCE["bfloat16"]


@pytest.mark.parametrize(
    ("rows", "k", "n", "transposed", "dtype"),
    [(203, 200, 136, True, "int8"), (5, 136, 264, False, None)],
)
def test_the_interpreter_by_its_defaults(rows: int, k: int, n: int, transposed: bool, dtype: str | None) -> None:
    """As kernels/README.md has it. It has no memory past an array's end, where last blocks of a TPU's copies reach."""
    rng = np.random.default_rng(0)
    sizes = np.array([rows // 2, 0, rows - rows // 2 - 1])
    lhs, weight = random(rng, rows, k), random(rng, 3, k, n)
    scale, right = None, f64(weight)
    if dtype:
        weight, scale = quantize_weights(weight, dtype)
        right = f64(weight) * f64(scale)[0, :, :, 0]
    out = grouped_mm(
        lhs, (weight.swapaxes(1, 2) if transposed else weight,), jnp.asarray(sizes),
        tile=dataclasses.replace(TILE, tile_k=128), transposed=transposed, scale=scale,
        interpret=pltpu.InterpretParams(),
    )  # fmt: skip
    assert out.shape == (rows, n)
    assert reference.row_error(f64(out), reference.grouped_gemm(f64(lhs), right, sizes)) <= BF16_TOLERANCE


def test_a_checked_shard_map_is_refused_in_one_line() -> None:
    mesh = jax.make_mesh((1,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    P = jax.sharding.PartitionSpec
    lhs, weight, sizes = zeros(16, 256), zeros(2, 256, 128), jnp.full(2, 8)

    def sharded(**options: bool) -> jax.Array:
        return jax.shard_map(
            lambda a, w, s: grouped_mm(a, (w,), s, tile=TILE, interpret=INTERPRET),
            mesh=mesh, in_specs=(P(), P(None, None, "x"), P()), out_specs=P(None, "x"), **options,
        )(lhs, weight, sizes)  # fmt: skip

    with pytest.raises(ValueError, match=r"call jax\.shard_map\(\.\.\., check_vma=False\)") as error:
        sharded()
    assert "\n" not in str(error.value)
    assert sharded(check_vma=False).shape == (16, 128)


@pytest.mark.parametrize("gated", [True, False])
def test_a_whole_layer(gated: bool) -> None:
    rng = np.random.default_rng(0)
    tokens, hidden, width, experts, k = 24, 256, 136, 6, 3
    x = random(rng, tokens, hidden)
    up = tuple(random(rng, experts, hidden, width) for _ in range(2 if gated else 1))
    down = random(rng, experts, width, hidden)
    expert = np.sort(rng.integers(0, experts, tokens * k))
    sizes = np.bincount(expert, minlength=experts)
    token = rng.permutation(np.repeat(np.arange(tokens), k)).astype(np.int32)
    weight = rng.random(tokens * k, dtype=np.float32)
    out = moe_experts(
        x, up, down, jnp.asarray(token), jnp.asarray(weight), jnp.asarray(sizes, jnp.int32), tile_up=TILE,
        tile_down=TILE, interpret=INTERPRET,
    )  # fmt: skip
    expected = reference.moe_experts(
        f64(x), f64(up[0]), f64(up[1]) if gated else None, f64(down), token, weight.astype(np.float64), sizes
    )
    assert reference.row_error(f64(out), expected) <= BF16_TOLERANCE
