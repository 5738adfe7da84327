"""Errors on shapes that were not fitted, and the intervals that hold them."""

import numpy as np

from moe_codesign.arrays import F64
from moe_codesign.cost.stacks.model import TOKEN_BUCKETS

_COVERAGE = 0.9


def errors(predicted: F64, measured: F64) -> tuple[float, float, float]:
    """Absolute relative error in percent: mean, median, 90th percentile."""
    found = 100 * np.abs(predicted / measured - 1)
    return float(found.mean()), float(np.median(found)), float(np.percentile(found, 90))


def conformal_interval(log_errors: F64, num_tokens: F64) -> tuple[float, float, float]:
    """Per bucket of tokens the log error that 90 % of held-out rows do not exceed, by the conformal rank."""
    bucket = np.searchsorted(TOKEN_BUCKETS, num_tokens)
    found = []
    for number in range(3):
        inside = np.sort(np.abs(log_errors[bucket == number] if (bucket == number).sum() >= 20 else log_errors))
        rank = min(int(np.ceil((len(inside) + 1) * _COVERAGE)), len(inside)) - 1
        found.append(max(float(inside[rank]), 0.01))
    return found[0], found[1], found[2]
