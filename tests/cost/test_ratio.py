"""The interval of a ratio of two times: narrower than two independent ones, the more so the nearer their shapes."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_codesign.calibrations.ratios import FILE, RatioLaw, distance, law_of, shipped
from moe_codesign.cost.ratio import Ratio, joined, product, ratio
from moe_codesign.domain.pair import Pair
from moe_codesign.domain.shape import MoEShape
from moe_codesign.domain.tile_pair import TilePair
from moe_codesign.domain.timing import Grade, Timing
from moe_codesign.domain.workload import Workload
from moe_kernels.tile import TritonTile

TILE = TritonTile(block_m=64, block_n=128, block_k=64, num_warps=4, num_stages=3, tma=True)
OTHER = TritonTile(block_m=16, block_n=128, block_k=64, num_warps=4, num_stages=3, tma=True)


def pair(
    us: float, *, width: int = 768, chip: str = "h100_sxm", grade: Grade = "modelled", high: float = 1.2,
    samples: tuple[float, ...] = (), tile: TritonTile = TILE, **workload: Any,
) -> Pair:  # fmt: skip
    return Pair(
        chip=chip,
        shape=MoEShape(hidden_size=2048, moe_intermediate_size=width, num_experts=128, num_experts_per_tok=8),
        workload=Workload(name="decode", **({"num_tokens": 64} | workload)),
        kernel="triton.grouped_gemm",
        tiles=TilePair(tile, tile),
        timing=Timing(
            grade=grade, latency_us=us, low_us=us / high, high_us=us * high, bound_us=us / 2, limiter="memory",
            samples_us=samples,
        ),
        quality_ratio=1.0,
    )  # fmt: skip


def test_near_shapes_are_compared_better_than_far_ones() -> None:
    here = pair(100.0)
    halves = [ratio(here, pair(110.0, width=width)).log_half for width in (832, 1024, 4096)]
    independent = math.hypot(math.log(1.2), math.log(1.2))
    assert halves[0] < halves[1] < halves[2]
    assert halves[0] == pytest.approx(independent * shipped().ours.factor(math.log(832 / 768)))


def test_what_is_not_of_one_model_is_independent() -> None:
    here, independent = pair(100.0), math.hypot(math.log(1.2), math.log(1.2))
    for other in (
        pair(110.0, chip="b200"),
        pair(110.0, grade="simulated"),
        pair(110.0, dtype="fp8"),
        pair(110.0, grade="measured"),
    ):
        assert ratio(here, other).log_half == pytest.approx(independent)


def test_two_tiles_of_one_shape_have_a_law_of_their_own() -> None:
    found = ratio(pair(100.0), pair(80.0, tile=OTHER))
    assert found.log_half == pytest.approx(math.hypot(math.log(1.2), math.log(1.2)) * shipped().ours.tiles)
    assert found.value == 1.25


def test_a_pair_and_itself() -> None:
    assert ratio(pair(100.0), pair(100.0)) == Ratio(1.0, 1.0, 1.0, 0.5)
    assert ratio(pair(100.0), pair(100.0)).is_tie


def test_measurements_are_compared_by_their_samples() -> None:
    fast = pair(100.0, grade="measured", samples=tuple(100.0 + i % 5 for i in range(40)))
    slow = pair(110.0, grade="measured", samples=tuple(110.0 + i % 5 for i in range(40)), width=1024)
    found = ratio(fast, slow)
    assert found.chance == 1.0
    assert not found.is_tie
    assert found.high < 0.95
    assert ratio(fast, slow) == found, "the same draws every time"
    few = pair(110.0, grade="measured", samples=(110.0,), width=1024)
    assert ratio(fast, few).log_half == pytest.approx(math.hypot(math.log(1.2), math.log(1.2)))


@given(st.floats(1.0, 1e6), st.floats(1.0, 1e6), st.integers(64, 4096), st.integers(1, 4096))
def test_the_other_way_round(a: float, b: float, width: int, tokens: int) -> None:
    one, other = pair(a), pair(b, width=width, num_tokens=tokens)
    there, back = ratio(one, other), ratio(other, one)
    assert there.low <= there.value <= there.high
    assert there.value * back.value == pytest.approx(1.0)
    assert there.low * back.high == pytest.approx(1.0)
    assert there.chance + back.chance == pytest.approx(1.0)
    # The chance is that of 5 % where the interval just excludes 1.
    assert there.is_tie or there.chance < 0.051 or there.chance > 0.949


def times(draw: st.DrawFn) -> list[tuple[Pair, int]]:
    return [
        (
            pair(
                draw(st.floats(1.0, 1e4)),
                width=draw(st.integers(64, 4096)),
                chip=draw(st.sampled_from(["h100_sxm", "b200"])),
                high=draw(st.floats(1.01, 2.0)),
                tile=draw(st.sampled_from([TILE, OTHER])),
            ),
            draw(st.integers(-3, 3)),
        )
        for _ in range(draw(st.integers(1, 5)))
    ]


@given(st.composite(times)())
def test_what_holds_for_every_product(factors: list[tuple[Pair, int]]) -> None:
    found = product(factors)
    assert found.value == pytest.approx(math.prod(one.timing.latency_us**power for one, power in factors))
    assert found.low <= found.value <= found.high
    back = product([(one, -power) for one, power in factors])
    assert back.log_half == pytest.approx(found.log_half)
    twice = product([*factors, *((one, -power) for one, power in factors)])
    assert (twice.value, twice.low, twice.high) == (1.0, 1.0, 1.0)


def test_a_product_by_hand() -> None:
    """Errors of one chip cancel as far as its law says; a time to the power 2 errs twice as far."""
    half = math.log(1.2)
    h100, b200 = pair(100.0), pair(50.0, chip="b200")
    wide, wide_there = pair(110.0, width=1024), pair(56.0, chip="b200", width=1024)
    assert product([(h100, 2)]).log_half == pytest.approx(2 * half)
    assert product([(h100, 1), (b200, 1)]).log_half == pytest.approx(math.hypot(half, half))
    apart = [ratio(h100, wide).log_half, ratio(b200, wide_there).log_half]
    both = product([(h100, 1), (wide, -1), (b200, -1), (wide_there, 1)])
    assert both.value == pytest.approx(100 / 110 / 50 * 56)
    assert both.log_half == pytest.approx(math.hypot(*apart))
    assert product([(h100, 1), (wide, -1)]) == ratio(h100, wide)


def test_joined_ratios_err_together() -> None:
    one, other = Ratio.around(2.0, 0.1), Ratio.around(0.5, 0.3)
    both = joined([one, other], [1.0, 1.0])
    assert both.value == pytest.approx(1.0)
    assert both.log_half == pytest.approx(0.2)
    assert joined([one, other], [3.0, 1.0]).value == pytest.approx(2**0.5)


@given(st.lists(st.floats(0.0, 20.0), min_size=2, max_size=2).map(sorted))
def test_shipped_laws_rise_with_distance(distances: list[float]) -> None:
    laws: list[RatioLaw] = [getattr(shipped(), name) for name in type(shipped()).model_fields if name != "format"]
    for law in laws:
        near, far = (law.factor(one) for one in distances)
        assert 0 < law.near <= near <= far <= law.far


def test_which_law_holds() -> None:
    laws = shipped()
    assert law_of("measured", "h100_sxm", "bfloat16") is None
    assert law_of("modelled", "h100_sxm", "bfloat16") == laws.ours
    assert law_of("modelled", "b200", "bfloat16") == laws.ours_elsewhere
    assert law_of("modelled", "b200", "bfloat16", "sglang") == laws.stack
    assert law_of("modelled", "b200", "bfloat16", "vllm") == laws.stack_elsewhere
    assert law_of("simulated", "tpu_v6e", "bfloat16") == laws.simulated
    assert law_of("datasheet", "trainium2", "bfloat16") == laws.datasheet
    assert FILE.parent.name == "calibrations"


def test_distance() -> None:
    assert distance((2048, 768, 128, 8, 64), (2048, 768, 128, 8, 64)) == 0
    assert distance((2048, 768, 128, 8, 64), (2048, 1536, 256, 8, 64)) == pytest.approx(math.sqrt(2) * math.log(2))
