"""The range of problems that a fit has seen."""

import numpy as np

from moe_codesign.arrays import F64, Mask
from moe_codesign.fitting.measured import Measured
from moe_codesign.fitting.splits import folds


def in_range(data: Measured, known: Measured) -> Mask:
    """Rows of the first within the range of a fit to the second."""
    within = np.ones(len(data), dtype=bool)
    for name, values in range_columns(known).items():
        own = getattr(data.columns, name)
        within &= (own >= values.min()) & (own <= values.max())
    return within


def range_columns(data: Measured) -> dict[str, F64]:
    """The columns whose range a fit remembers, by name."""
    return {name: getattr(data.columns, name) for name in ("num_tokens", "hidden", "width", "local_experts", "top_k")}


def within_range(data: Measured) -> Mask:
    """Rows within the range of the shapes of the other folds: beyond it a prediction's interval is widened, so that
    errors there say nothing about the interval within. All rows, where nearly none are."""
    within = np.zeros(len(data), dtype=bool)
    for fitted, held in folds(data.shape_key):
        within |= held & in_range(data, data.take(np.flatnonzero(fitted)))
    return within if within.sum() >= 20 else np.ones(len(data), dtype=bool)
