"""Verdicts under noise as machines have it: a common drift, outliers, and what a process brings with it."""

import functools

import numpy as np
import pytest

from moe_codesign.arrays import F64
from moe_codesign.regression.verdict import BLOCKS, decide, judge, log_ratio


def blocks(
    rng: np.random.Generator, slowdown: float, *, noise: float, spread: float = 0.01, count: int = 8, pairs: int = 60
) -> list[F64]:
    """Log ratios of simulated samples, taken in turning order."""
    found = []
    for _ in range(count):
        place = rng.normal(0, spread / 2**0.5, 2)  # of each process
        drift = np.cumsum(rng.normal(0, noise / 10, 2 * pairs))
        times = (
            drift + np.abs(rng.normal(0, noise, 2 * pairs)) + rng.binomial(1, 0.05, 2 * pairs) * rng.exponential(0.5)
        )
        first, second = times[0::2], times[1::2]
        turned = np.arange(pairs) % 2 == 1
        own, other = np.where(turned, second, first), np.where(turned, first, second)
        found.append(own + place[0] + np.log1p(slowdown) - other - place[1])
    return found


def words(slowdown: float, runs: int, **options: float) -> list[str]:
    """Verdicts as a run comes to them: more blocks where the first ones leave it unclear."""
    rng = np.random.default_rng(7)
    return [
        decide(lambda: blocks(rng, slowdown, count=1, **options)[0]).word  # type: ignore[arg-type]
        for _ in range(runs)
    ]


def raw(rng: np.random.Generator, slowdown: float, *, noise: float, outliers: float = 0.0, runs: int = 4) -> F64:
    """A block from simulated times of single runs, reduced as those of a device are."""

    def sample(us: float) -> list[float]:
        spoilt = np.where(rng.random(runs) < outliers, 10.0, 1.0)
        return list(us * np.exp(rng.normal(0, noise, runs)) * spoilt)

    return np.array([log_ratio(sample(700 * (1 + slowdown)), sample(700)) for _ in range(24)])


@pytest.mark.parametrize("slowdown", [0.05, 0.06, 0.10])
def test_a_slowdown_of_a_twentieth_is_found_under_two_percent_of_noise(slowdown: float) -> None:
    rng = np.random.default_rng(1)
    found = [decide(lambda: raw(rng, slowdown, noise=0.02)).word for _ in range(50)]
    assert found.count("slower") >= 45
    # The same where processes differ by a percent, and with few pairs.
    assert words(slowdown, 200, noise=0.02, pairs=6).count("slower") >= 180


def test_the_same_code_raises_no_alarm_under_two_percent_of_noise() -> None:
    rng = np.random.default_rng(2)
    found: list[str] = [decide(lambda: raw(rng, 0.0, noise=0.02)).word for _ in range(50)]
    found = [*found, *words(0.0, 400, noise=0.02, pairs=12)]
    assert sum(word in ("slower", "faster") for word in found) <= 4
    assert found.count("same") >= 0.95 * len(found)


@pytest.mark.parametrize("slowdown", [0.0, 0.05])
def test_outliers_move_no_ratio(slowdown: float) -> None:
    """5 % of runs take ten times as long: the ratio moves by under 1 %."""
    for seed in range(12):
        ratios = [
            decide(functools.partial(raw, np.random.default_rng(seed), slowdown, noise=0.02, outliers=share)).ratio
            for share in (0.0, 0.05)
        ]
        assert abs(ratios[1] / ratios[0] - 1) < 0.01


def test_the_margin_is_what_counts_as_slower() -> None:
    rng = np.random.default_rng(3)
    taken = [raw(rng, 0.05, noise=0.01) for _ in range(BLOCKS)]
    assert judge(taken, margin=0.03).word == "slower"
    assert judge(taken, margin=0.10).word == "same"


@pytest.mark.parametrize(("times", "word"), [(1000.0, "slower"), (0.001, "faster"), (3.0, "slower")])
def test_a_large_ratio_takes_few_blocks(times: float, word: str) -> None:
    rng = np.random.default_rng(4)
    taken: list[F64] = []

    def block() -> F64:
        taken.append(np.log(times) + rng.normal(0, 0.02, 6))
        return taken[-1]

    assert decide(block).word == word
    assert len(taken) <= 4


@pytest.mark.parametrize(("slowdown", "word"), [(0.2, "unclear"), (9.0, "slower")])
def test_where_time_is_up_only_a_large_ratio_is_clear(slowdown: float, word: str) -> None:
    rng = np.random.default_rng(5)
    verdict = decide(lambda: raw(rng, slowdown, noise=0.01), late=lambda: True)
    assert verdict.word == word
    assert verdict.pairs == 24


# The full simulations can tell one false alarm in a hundred runs; the first quarter of them is run always.
RUNS = pytest.mark.parametrize("runs", [100, pytest.param(400, marks=pytest.mark.slow)])


@RUNS
@pytest.mark.parametrize("noise", [0.01, 0.05, 0.2])
def test_no_false_alarm_in_a_hundred(noise: float, runs: int) -> None:
    found = words(0.0, runs, noise=noise)
    assert sum(word in ("slower", "faster") for word in found) <= runs / 100
    if noise < 0.1:
        assert found.count("same") >= 0.95 * runs


@RUNS
@pytest.mark.parametrize("spread", [0.03, 0.05])
def test_processes_that_differ_raise_no_alarm_and_hide_no_tenth(spread: float, runs: int) -> None:
    found = words(0.0, runs, noise=0.03, spread=spread, pairs=30)
    assert sum(word in ("slower", "faster") for word in found) <= runs / 100
    found = words(0.10, runs // 4, noise=0.03, spread=spread, pairs=30)
    assert found.count("slower") >= 0.9 * len(found)


@RUNS
@pytest.mark.parametrize("noise", [0.01, 0.05])
def test_a_tenth_is_found(noise: float, runs: int) -> None:
    assert words(0.10, runs // 2, noise=noise).count("slower") >= 0.45 * runs
    assert words(-0.09, runs // 2, noise=noise).count("faster") >= 0.45 * runs


def test_noise_never_passes() -> None:
    """A slowdown that noise hides is unclear; it is not the same."""
    assert "same" not in words(0.10, 100, noise=0.5, pairs=10)


def test_a_few_blocks_off_are_not_enough() -> None:
    rng = np.random.default_rng(0)
    odd = [rng.normal(shift, 0.005, 50) for shift in (0.25, 0.25, 0.25, *[0.0] * 5)]
    assert judge(odd).word != "slower"


def test_empty_blocks_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one pair"):
        judge([])
    with pytest.raises(ValueError, match="at least one pair"):
        judge([np.array([])])
