import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_codesign.domain.frontier import frontier, non_dominated
from moe_codesign.domain.timing import Timing


def test_an_estimate_below_the_bound_cannot_be_built() -> None:
    with pytest.raises(ValueError, match="physical bound"):
        Timing(grade="modelled", latency_us=2, low_us=1, high_us=3, bound_us=1.5, limiter="memory")


def test_an_interval_must_hold_its_estimate() -> None:
    with pytest.raises(ValueError, match="interval"):
        Timing(grade="modelled", latency_us=4, low_us=1, high_us=3, bound_us=1, limiter="memory")


def test_a_measurement_below_the_bound_is_implausible() -> None:
    timing = Timing(grade="measured", latency_us=1, low_us=1, high_us=1, bound_us=2, limiter="memory")
    assert timing.implausible


POINTS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=20)


@given(POINTS)
def test_the_frontier_holds_what_nothing_beats(points: list[tuple[int, int]]) -> None:
    kept = frontier(points, lambda p: p, [False, True])

    def beats(a: tuple[int, int], b: tuple[int, int]) -> bool:
        return a != b and a[0] <= b[0] and a[1] >= b[1]

    assert set(kept) == {p for p in points if not any(beats(q, p) for q in points)}
    assert len(kept) == len(set(kept))


def test_a_frontier_of_many_is_found_at_once() -> None:
    """20,000 points in three values, 500 of them on a ball."""
    rng = np.random.default_rng(0)
    ball = np.abs(rng.normal(size=(500, 3)))
    points = np.vstack([ball / np.linalg.norm(ball, axis=1, keepdims=True), 0.5 * rng.random((19_500, 3))])
    kept = non_dominated(points, [True, True, True])
    assert set(range(500)) <= set(kept), "on a ball nothing beats anything"
    inside = points[[index for index in kept if index >= 500]]
    assert len(inside) < 100


def test_nan_is_on_no_frontier() -> None:
    assert frontier([(1.0,), (float("nan"),)], lambda p: p, [False]) == [(1.0,)]
