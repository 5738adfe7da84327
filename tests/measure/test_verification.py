"""What counts as a right result and a typical time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_codesign.measure.samples import enough, typical
from moe_codesign.measure.verification import Tolerance, WrongResultError, check, copied, finished

LAYER = Tolerance.of_layer("bfloat16")


@pytest.fixture(scope="module")
def large() -> tuple[np.ndarray, np.ndarray]:
    """1e7 elements and an honest result, which rounds as bfloat16 does."""
    rng = np.random.default_rng(0)
    expected = rng.standard_normal((2500, 4000))
    return expected, expected * (1 + 2**-9 * rng.uniform(-1, 1, expected.shape))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e-40, 0.0, "negated", "doubled"], ids=lambda bad: f"{bad}")
def test_one_bad_element_of_1e7_is_found(bad: float | str, large: tuple[np.ndarray, np.ndarray]) -> None:
    expected, found = large
    assert 0 < check(found, expected, LAYER) < 0.02
    place = (1234, int(np.argmin(np.abs(np.abs(expected[1234]) - 0.1))))  # a small one
    right = found[place]
    found[place] = {"negated": -right, "doubled": 2 * right}.get(bad, bad) if isinstance(bad, str) else bad
    with pytest.raises(WrongResultError):
        check(found, expected, LAYER)
    found[place] = right


def test_a_tiny_denormal_is_found_where_its_error_is_small() -> None:
    expected = np.full((4, 64), 1.0)
    expected[2, 3] = 0.01
    found = expected * (1 + 0.002 * np.cos(np.arange(64)))
    check(found, expected, LAYER)
    found[2, 3] = 1e-41
    with pytest.raises(WrongResultError, match="denormal"):
        check(found, expected, LAYER)


def test_the_reference_itself_is_no_kernels_result() -> None:
    expected = np.random.default_rng(0).standard_normal((8, 64))
    with pytest.raises(WrongResultError, match="the reference itself"):
        check(expected.astype(np.float32).astype(float), expected, LAYER)
    assert check(expected, expected, Tolerance(1e-6)) == 0, "other operations may be exact"


def test_a_little_error_everywhere_is_found() -> None:
    rng = np.random.default_rng(0)
    expected = rng.standard_normal((64, 512))
    found = expected + 0.007 * rng.standard_normal(expected.shape)
    with pytest.raises(WrongResultError, match="root mean square"):
        check(found, expected, LAYER)


@pytest.mark.parametrize("shape", [(3, 4), (4,), (4, 3, 1), ()])
def test_another_shape_is_wrong(shape: tuple[int, ...]) -> None:
    with pytest.raises(WrongResultError, match="shape"):
        check(np.zeros(shape), np.zeros((4, 3)), LAYER)


def test_arrays_that_compute_when_they_are_looked_at_are_finished() -> None:
    class Subclass(np.ndarray):
        pass

    class Number:
        looked = 0

        def __float__(self) -> float:
            Number.looked += 1
            return 2.0

    assert type(finished(np.zeros(3).view(Subclass))) is np.ndarray
    done = finished(np.array([Number(), Number()], dtype=object))
    assert Number.looked == 2
    assert copied(done).tolist() == [2.0, 2.0]
    assert Number.looked == 2, "looked at while the clock ran, not afterwards"
    with pytest.raises(WrongResultError, match="no result"):
        finished(None)


def test_a_copy_does_not_change_with_its_result() -> None:
    result = np.ones(3)
    copy = copied(finished(result))
    result[:] = 0
    assert copy.tolist() == [1, 1, 1]


def test_outliers_move_no_estimate() -> None:
    """5 % of samples take ten times as long: what a time is moves by under 1 %, of 1,000 measurements each."""
    rng = np.random.default_rng(0)
    for count in (12, 20, 50):
        moved = []
        for _ in range(1000):
            clean = 100 * np.exp(rng.normal(0, 0.01, count))
            spoilt = clean * np.where(rng.random(count) < 0.05, 10, 1)
            moved.append(abs(typical(spoilt.tolist()) / typical(clean.tolist()) - 1))
        assert max(moved) < 0.01, count


def test_samples_are_taken_until_enough_of_them_agree() -> None:
    """Where a measurement ends at five samples that agree, outliers move it by under 1 % too."""
    rng = np.random.default_rng(0)
    far = 0
    for _ in range(2000):
        samples: list[float] = []
        while not enough(samples, 5):
            samples.append(float(100 * np.exp(rng.normal(0, 0.003)) * (10 if rng.random() < 0.05 else 1)))
        far += abs(typical(samples) / 100 - 1) > 0.01
    assert far == 0


@settings(max_examples=50)
@given(st.lists(st.floats(1e-3, 1e9), min_size=1, max_size=30))
def test_a_typical_time_is_within_its_samples(samples: list[float]) -> None:
    assert min(samples) <= typical(samples) <= max(samples)
    assert typical(samples) == typical(samples[::-1])
