"""Operations of whole models: bounds, invariants, and what is said of them."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_codesign.calibrations.operations import FOLDER
from moe_codesign.chips import GpuChip, load_chip
from moe_codesign.cost.operations.all_to_all import distinct_ranks
from moe_codesign.cost.operations.attention import PrefillAttention
from moe_codesign.cost.operations.families import OPERATIONS
from moe_codesign.cost.operations.fitted import find_operations
from moe_codesign.cost.operations.operation import Rates, joined
from moe_codesign.errors import UserError

SHIPPED = sorted(path.stem for path in FOLDER.glob("*.json"))


def gpu(name: str) -> GpuChip:
    return GpuChip.of(load_chip(name))


@pytest.mark.parametrize("stem", SHIPPED)
def test_every_shipped_operation_answers_over_its_range_and_beyond(stem: str) -> None:
    chip, stack = stem.rsplit("-", 1)
    fitted = find_operations(gpu(chip), stack)
    rng = np.random.default_rng(0)
    for name, operation in fitted.file.operations.items():
        for variant, one in operation.variants.items():
            sizes = {
                column: np.maximum(
                    np.round(np.exp(rng.uniform(np.log1p(low) - 1, np.log1p(high) + 1, 50))), low and 1.0
                )
                for column, (low, high) in one.fitted_range.items()
            }
            if name == "collective":
                sizes["ranks"] = np.clip(sizes["ranks"], 2, 8)
            times = fitted.times(name, variant, sizes)
            bound = OPERATIONS[name].bounds(fitted.rates, variant, sizes).us
            assert np.isfinite(times.latency_us).all()
            assert (times.latency_us >= bound * (1 - 1e-12)).all()
            assert (times.low_us <= times.latency_us).all()
            assert (times.latency_us <= times.high_us).all()
            assert (times.low_us > 0).all()


@pytest.mark.parametrize("stem", SHIPPED)
def test_what_ships_was_judged_on_shapes_in_no_fit(stem: str) -> None:
    file = json.loads((FOLDER / f"{stem}.json").read_text())
    errors = [
        (held["mape"], held["roofline_mape"])
        for operation in file["operations"].values()
        for held in operation["held_out"].values()
    ]
    assert errors
    assert np.mean([own < roofline for own, roofline in errors]) > 0.95


@settings(deadline=None, max_examples=50)
@given(new=st.integers(1, 300), past=st.integers(0, 300), window=st.integers(0, 200))
def test_pairs_of_causal_attention_are_counted_one_by_one(new: int, past: int, window: int) -> None:
    """FLOPs of prefill are of the pairs that a mask leaves, counted here query by query."""
    one = np.ones(1)
    sizes = {
        "batch": one, "tokens": one * new, "past": one * past, "num_heads": one, "num_kv_heads": one,
        "head_dim": one * 64, "window": one * window,
    }  # fmt: skip
    rates = Rates.of(gpu("h100_sxm"))
    compute = PrefillAttention().bounds(rates, "bfloat16/bfloat16", sizes).compute_us[0]
    seen = sum(min(past + query, window or past + query) for query in range(1, new + 1))
    assert compute == pytest.approx(4 * 64 * seen / rates.flops["bfloat16"])


@settings(deadline=None, max_examples=30)
@given(ranks=st.sampled_from([2, 4, 8]), chosen=st.integers(1, 6), experts=st.sampled_from([8, 16, 64]))
def test_ranks_that_a_token_goes_to_are_those_of_all_choices(ranks: int, chosen: int, experts: int) -> None:
    rng = np.random.default_rng(0)
    drawn = [len({e // (experts // ranks) for e in rng.choice(experts, chosen, replace=False)}) for _ in range(2000)]
    found = distinct_ranks(np.array([float(ranks)]), np.array([float(chosen)]), np.array([float(experts)]))[0]
    assert found == pytest.approx(np.mean(drawn), abs=0.1)


def test_joined_sides_are_no_faster_than_the_longest() -> None:
    first, second = np.array([1.0, 5.0, 2.0]), np.array([3.0, 5.0, 0.0])
    times = joined(2.5, first, second)
    assert (times >= np.maximum(first, second)).all()
    assert times[2] == pytest.approx(2.0)


def test_bytes_that_leave_the_domain_go_over_the_network() -> None:
    rates = Rates.of(gpu("h100_sxm"))
    sent = np.array([8e6, 8e6])
    within, beyond = rates.sent_us(sent, np.array([8.0, 16.0]))
    assert within == pytest.approx(8e6 / 450e3)
    assert beyond == pytest.approx(8e6 * 8 / 15 / 50e3)
    with pytest.raises(UserError, match="has no links"):
        Rates.of(gpu("h100_sxm").model_copy(update={"link": None})).sent_us(sent, np.array([2.0, 2.0]))


def test_another_chip_answers_by_the_nearest_with_its_own_rates_and_a_wider_interval() -> None:
    chip = next(stem.rsplit("-", 1) for stem in SHIPPED if stem.startswith("h200_sxm"))
    own, other = find_operations(gpu("h200_sxm"), chip[1]), find_operations(gpu("h20"), chip[1])
    assert not own.notes
    assert other.notes == (f"operations are by {other.file.chip}'s measurements, with the rates of h20",)
    sizes = {"m": np.array([4096.0]), "n": np.array([4096.0]), "k": np.array([4096.0])}
    mine, its = (one.times("dense_gemm", "bfloat16", sizes) for one in (own, other))
    assert its.latency_us[0] > 3 * mine.latency_us[0]
    assert its.high_us[0] / its.latency_us[0] > mine.high_us[0] / mine.latency_us[0]


def test_a_kind_that_was_not_measured_is_answered_as_the_most_like_it_and_says_so() -> None:
    fitted = find_operations(gpu("h200_sxm"), "trtllm")
    one = np.ones(1)
    sizes = {
        "batch": one * 8, "context": one * 2000, "num_heads": one * 32, "num_kv_heads": one * 8, "head_dim": one * 128,
        "window": one * 0,
    }  # fmt: skip
    times = fitted.times("decode_attention", "fp8/fp8", sizes)
    assert times.notes == ("decode_attention in fp8/fp8 was not measured; its time is by bfloat16/fp8's",)


def test_an_unknown_stack_is_one_line() -> None:
    with pytest.raises(UserError, match="no operation was measured under stack tgi; use one of"):
        find_operations(gpu("h200_sxm"), "tgi")
