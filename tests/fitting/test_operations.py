"""Fits of operations: planted times are found, shapes are never on both sides of a split, intervals hold."""

import numpy as np
import pytest

from moe_codesign.arrays import F64
from moe_codesign.chips import GpuChip, load_chip
from moe_codesign.cost.operations.collective import Collective, CollectiveCoefficients
from moe_codesign.cost.operations.operation import Rates
from moe_codesign.fitting.operation_rows import Rows
from moe_codesign.fitting.operations import fit_operation, with_keys
from moe_codesign.fitting.splits import in_test_split

RATES = Rates.of(GpuChip.of(load_chip("h200_sxm")))
PLANTED = CollectiveCoefficients(launch_us=9.0, rank_us=0.8, link=1.5, half_bytes=6e5, small=2.0)


def planted(noise: float, scale: float = 1.0) -> Rows:
    rng = np.random.default_rng(1)
    ranks, size = np.meshgrid([2.0, 4.0, 8.0], np.round(2.0 ** np.arange(7, 29, 0.25)))
    sizes: dict[str, F64] = {"ranks": ranks.ravel(), "bytes": size.ravel()}
    times = scale * Collective().physics_us(RATES, "all_reduce", PLANTED, sizes)
    return with_keys(
        Collective(), Rows(sizes, times * np.exp(rng.normal(0, noise, len(times))), np.array([]), "1", "k")
    )


def test_planted_coefficients_give_the_planted_times() -> None:
    found = fit_operation(Collective(), RATES, {"all_reduce": planted(0.0)})
    assert found is not None
    held = found.fitted.held_out["all_reduce"]
    assert held.physics_mape < 2.0
    assert held.mape < 2.0 < held.roofline_mape


def test_shapes_of_the_test_split_are_in_no_fit() -> None:
    """Times of those shapes alone are changed a thousandfold: nothing that is fitted moves."""
    rows = planted(0.05)
    test = in_test_split(rows.keys)
    assert 0 < test.sum() < len(rows) / 2
    spoiled = Rows(rows.sizes, np.where(test, 1e3, 1.0) * rows.latency_us, rows.keys, "1", "k")
    one, other = (fit_operation(Collective(), RATES, {"all_reduce": each}) for each in (rows, spoiled))
    assert one is not None
    assert other is not None
    assert one.fitted.variants["all_reduce"].coefficients == other.fitted.variants["all_reduce"].coefficients
    assert one.fitted.variants["all_reduce"].interval == other.fitted.variants["all_reduce"].interval
    assert other.fitted.held_out["all_reduce"].mape > 90


def test_the_interval_holds_what_it_says() -> None:
    found = fit_operation(Collective(), RATES, {"all_reduce": planted(0.1)})
    assert found is not None
    assert 75 <= found.fitted.held_out["all_reduce"].interval_coverage <= 100
    assert 0.1 < found.fitted.variants["all_reduce"].interval < 0.4


def test_too_few_rows_are_not_fitted() -> None:
    assert fit_operation(Collective(), RATES, {"all_reduce": planted(0.0).take(np.arange(20))}) is None


@pytest.mark.parametrize("variant", ["broadcast"])
def test_kinds_that_the_operation_does_not_have_are_left_out(variant: str) -> None:
    assert fit_operation(Collective(), RATES, {variant: planted(0.0)}) is None
