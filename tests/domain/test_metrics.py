"""Metrics of a pair, and objectives, whose text and value are inverse."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_codesign.chips import load_chip
from moe_codesign.domain.metrics import METRICS, Metric, Objective, metrics_of
from tests.domain.test_results import PAIR
from tests.domain.values import WORDS

CHIP = load_chip("h100_sxm")


@given(metric=st.sampled_from(sorted(METRICS.values(), key=lambda metric: metric.name)), workload=WORDS)
def test_an_objective_reads_back_from_its_text(metric: Metric, workload: str) -> None:
    objective = Objective(metric, None if metric.of_shape else workload)
    assert Objective.parse(str(objective)) == objective


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("decode.latency", "did you mean latency_us"),
        ("latency_us", "WORKLOAD.latency_us"),
        (".latency_us", "WORKLOAD.latency_us"),
        ("decode.quality", "write quality"),
        ("", "unknown metric"),
    ],
)
def test_objectives_that_are_none_say_why(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Objective.parse(text)


def test_metrics_by_hand() -> None:
    pair = dataclasses.replace(
        PAIR,
        shape=dataclasses.replace(PAIR.shape, num_layers=10),
        workload=dataclasses.replace(PAIR.workload, num_tokens=100, ep=2),
        timing=dataclasses.replace(PAIR.timing, latency_us=1000.0, high_us=1000.0),
    )
    price, power = CHIP.price, CHIP.power.all_in_kw
    assert price is not None
    assert price.kind == "rental_3y"
    assert power is not None
    # Ten layers of a millisecond: 100 tokens every 10 ms on two chips.
    assert metrics_of(pair, CHIP) == pytest.approx(
        {
            "latency_us": 1000.0,
            "usd_per_mtok": price.usd_per_hour * 2 / 3600 * 1e6 / 10_000,
            "joules_per_token": power * 1e3 * 2 / 10_000,
            "quality": 1.0,
            "tokens_per_s_per_chip": 5_000.0,
            "tokens_per_s_per_user": 100.0,
        }
    )


def test_a_chip_without_price_answers_the_rest() -> None:
    chip = load_chip("trainium2")
    assert METRICS["usd_per_mtok"].missing(chip) == "price"
    assert METRICS["usd_per_mtok"].missing(CHIP) is None
    assert METRICS["latency_us"].missing(chip) is None
    assert "usd_per_mtok" not in metrics_of(PAIR, chip)
    with pytest.raises(ValueError, match="no price"):
        Objective.parse("decode.usd_per_mtok").value([PAIR], chip)


def test_an_objective_takes_the_pair_of_its_workload() -> None:
    slower = dataclasses.replace(
        PAIR,
        workload=dataclasses.replace(PAIR.workload, name="prefill"),
        timing=dataclasses.replace(PAIR.timing, latency_us=3.0),
    )
    pairs = [PAIR, slower]
    assert Objective.parse("decode.latency_us").value(pairs, CHIP) == 2.0
    assert Objective.parse("prefill.latency_us").value(pairs, CHIP) == 3.0
    assert Objective.parse("quality").value(pairs, CHIP) == 1.0
    with pytest.raises(ValueError, match="no pair"):
        Objective.parse("other.latency_us").value(pairs, CHIP)
