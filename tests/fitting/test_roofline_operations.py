"""How far operations are from the roofline: planted numbers are found, and the interval is of a chip in no fit."""

import numpy as np
import pytest

from moe_codesign.fitting.roofline_operations import BoundRows, fit_slowdown


def planted(compute: float, memory: float, fixed: float, seed: int) -> BoundRows:
    rng = np.random.default_rng(seed)
    first, second = np.exp(rng.uniform(-2, 8, (2, 400)))
    return BoundRows(first, second, np.maximum(compute * first, memory * second) + fixed)


def test_planted_numbers_are_found() -> None:
    found = fit_slowdown({"one": planted(2.0, 1.5, 12.0, 0), "other": planted(2.0, 1.5, 12.0, 1)})
    assert (found.compute, found.memory, found.fixed_us) == pytest.approx((2.0, 1.5, 12.0), rel=0.01)
    assert found.interval < 0.02
    assert (found.rows, found.chips) == (800, 2)


def test_the_interval_is_of_the_chip_that_is_farthest_off() -> None:
    found = fit_slowdown({
        "one": planted(2.0, 1.5, 12.0, 0), "other": planted(2.0, 1.5, 12.0, 1), "odd": planted(4.0, 3.0, 24.0, 2),
    })  # fmt: skip
    assert found.interval == pytest.approx(np.log(2), abs=0.05)
