"""Verdicts under noise as machines have it: a common drift, outliers, and what a process brings with it."""

import numpy as np
import pytest

from moe_codesign.arrays import F64
from moe_codesign.regression.verdict import judge


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
    """Verdicts as a run comes to them: a second look where the first is unclear."""
    rng = np.random.default_rng(7)
    found: list[str] = []
    for i in range(runs):
        taken = blocks(rng, slowdown, **options)  # type: ignore[arg-type]
        verdict = judge(taken, seed=i)
        if verdict.word == "unclear":
            verdict = judge([*taken, *blocks(rng, slowdown, **options)], seed=i)  # type: ignore[arg-type]
        found.append(verdict.word)
    return found


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
