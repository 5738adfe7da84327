"""Laws of ratios, on errors whose shared part is known."""

import numpy as np
import pytest

from moe_codesign.calibrations.ratios import RatioLaw
from moe_codesign.errors import UserError
from moe_codesign.fitting.ratio_law import ErrorPairs, Estimates, error_pairs, fit_law


def estimates(shared: float, seed: int = 0, shapes: int = 60) -> Estimates:
    """Errors of one batch: a part that all shapes share, and a part of each shape's own."""
    rng = np.random.default_rng(seed)
    sizes = np.log(rng.integers(8, 64, (shapes, 5)) * 64.0)
    error = shared * rng.normal() + np.sqrt(1 - shared**2) * rng.normal(size=shapes)
    return Estimates(
        name=f"made {seed}",
        log_error=0.1 * error,
        log_width=np.full(shapes, 0.1645),
        log_sizes=sizes,
        shape_key=np.array([str(i) for i in range(shapes)]),
        workload=np.zeros(shapes, dtype=np.int64),
    )


@pytest.mark.parametrize("shared", [0.0, 0.8])
def test_what_is_shared_is_not_in_the_ratio(shared: float) -> None:
    law = fit_law([error_pairs(estimates(shared, seed)) for seed in range(12)], "made")
    assert law.factor(2.0) == pytest.approx(np.sqrt(1 - shared**2), rel=0.1)
    fresh = [error_pairs(estimates(shared, seed)) for seed in range(100, 112)]
    assert 0.87 < np.mean([one.held(law) for one in fresh]) < 0.93


def test_near_pairs_get_the_narrower_interval() -> None:
    rng = np.random.default_rng(0)
    distance = rng.uniform(0, 4, 20_000)
    factor = 0.2 + 0.8 * -np.expm1(-distance / 1.0)
    share = np.abs(rng.normal(size=len(distance))) / 1.6449 * factor
    law = fit_law([ErrorPairs(distance, share, np.ones(len(distance)))], "made")
    for near, far in ((0.0, 0.3), (0.8, 1.2), (3.0, 4.0)):
        some = (distance >= near) & (distance < far)
        assert np.mean(share[some] <= law.factors(distance[some])) == pytest.approx(0.9, abs=0.025)
    assert law.near < 0.35 < 0.85 < law.far


def test_sets_weigh_the_same_however_many_rows_they_have() -> None:
    wide, narrow = (ErrorPairs(np.ones(n), np.full(n, share), np.ones(n)) for n, share in ((50, 0.9), (5000, 0.1)))
    assert fit_law([wide, narrow], "made").factor(1.0) > 0.85


def test_pairs_are_of_one_workload_and_two_shapes() -> None:
    every = estimates(0.0, shapes=6)
    every = Estimates(
        every.name, every.log_error, every.log_width, every.log_sizes,
        np.array(["a", "a", "b", "c", "d", "d"]), np.array([0, 0, 0, 1, 1, 1]),
    )  # fmt: skip
    assert len(error_pairs(every)) == 4
    pairs = error_pairs(every)
    expected = abs(every.log_error[0] - every.log_error[2]) / np.hypot(0.1645, 0.1645)
    assert expected in pairs.share
    assert len(error_pairs(every.take(np.zeros(6, dtype=bool)))) == 0


def test_tiles_of_one_problem_have_their_own_number() -> None:
    pairs = [error_pairs(estimates(0.5, seed)) for seed in range(3)]
    assert fit_law(pairs, "made", np.linspace(0, 1, 101)).tiles == pytest.approx(0.9)
    law = fit_law(pairs, "made")
    assert law.tiles == law.far
    assert law.factor(0.0, other_tiles=True) == law.tiles


def test_no_pairs() -> None:
    with pytest.raises(UserError, match="no two measured shapes"):
        fit_law([error_pairs(estimates(0.0, shapes=1))], "made")


def test_a_law_has_a_source() -> None:
    with pytest.raises(ValueError, match="source"):
        RatioLaw.model_validate({"near": 0.1, "far": 0.2, "scale": 1.0, "tiles": 0.1, "pairs": 0})
