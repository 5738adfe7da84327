"""One time of many samples, some of which the machine has spoilt."""

from collections.abc import Sequence

import numpy as np

_OUTLIER = 3.0
"""So many times the median, or so small a part of it, is no sample of the same thing."""
_AGREE = 0.25
"""Samples within this part of the median agree with it."""


def typical(samples: Sequence[float]) -> float:
    """The median of the samples without outliers, which would draw it to their side.

    Raises:
        ValueError: there is no sample.
    """
    if not samples:
        raise ValueError("no sample, so that there is no typical one")
    values = np.asarray(samples, dtype=float)
    median = np.median(values)
    near = values[(values <= _OUTLIER * median) & (values >= median / _OUTLIER)]
    return float(np.median(near)) if near.size else float(median)


def enough(samples: Sequence[float], least: int) -> bool:
    """Whether so many samples agree with their median: with few, most of them may be outliers."""
    if len(samples) < least:
        return False
    values = np.asarray(samples, dtype=float)
    median = np.median(values)
    return int(np.sum(np.abs(values - median) <= _AGREE * median)) >= least
