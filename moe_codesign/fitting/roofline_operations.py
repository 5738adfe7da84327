"""Fit how far operations are from the roofline, over all chips that were measured, for chips that were not."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from moe_codesign.arrays import F64
from moe_codesign.calibrations.roofline_operations import Slowdown
from moe_codesign.cost.operations.roofline import slowed_us

_COVERAGE = 0.9


@dataclass(frozen=True, eq=False)
class BoundRows:
    """Rows of one operation on one chip: their bounds and times [rows]."""

    compute_us: F64
    memory_us: F64
    latency_us: F64


def fit_slowdown(by_chip: Mapping[str, BoundRows]) -> Slowdown:
    """Three numbers with the least error of the logarithm, each chip of like weight, and an interval by the errors on
    each chip of a fit without it."""
    own = _fit(list(by_chip.values()))
    errors = [
        np.log(_times(_fit([rows for chip, rows in by_chip.items() if chip != held]), mine) / mine.latency_us)
        for held, mine in by_chip.items()
        if len(by_chip) > 1
    ] or [np.log(_times(own, rows) / rows.latency_us) for rows in by_chip.values()]
    # As many of each chip: what a chip that was not fitted exceeds in one row of ten.
    fewest = min(len(error) for error in errors)
    even = [np.quantile(np.abs(error), np.linspace(0, 1, max(fewest, 200))) for error in errors]
    interval = float(np.quantile(np.concatenate(even), _COVERAGE, method="higher"))
    return own.model_copy(
        update={
            "interval": float(f"{interval:.3g}"),
            "rows": sum(len(rows.latency_us) for rows in by_chip.values()),
            "chips": len(by_chip),
        }
    )


def _times(slow: Slowdown, rows: BoundRows) -> F64:
    return slowed_us(slow, rows.compute_us, rows.memory_us)


def _fit(every: list[BoundRows]) -> Slowdown:
    from scipy.optimize import least_squares

    compute, memory, latency = (
        np.concatenate([getattr(rows, name) for rows in every]) for name in ("compute_us", "memory_us", "latency_us")
    )
    weight = np.concatenate([np.full(len(rows.latency_us), len(rows.latency_us) ** -0.5) for rows in every])

    def residuals(logs: F64) -> F64:
        first, second, fixed = np.exp(logs)
        times = np.maximum(first * compute, second * memory) + fixed
        return np.asarray(weight * np.log(times / latency))

    found = least_squares(residuals, np.log([2.0, 1.5, 10.0]), bounds=(np.log([1, 1, 0.1]), np.log([50, 50, 500])))
    compute_slow, memory_slow, fixed_us = (float(f"{value:.4g}") for value in np.exp(found.x))
    return Slowdown(
        compute=compute_slow, memory=memory_slow, fixed_us=fixed_us, interval=1.0, rows=len(latency), chips=len(every)
    )
