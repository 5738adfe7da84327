"""The items of a list that no other item beats."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def frontier(items: Sequence[T], values: Callable[[T], Sequence[float]], maximise: Sequence[bool]) -> list[T]:
    """The items that no other one beats in every value.

    The first of several items with equal values is kept. A NaN never belongs to a frontier.
    """
    if not items:
        return []
    sign = np.where(np.asarray(maximise), -1.0, 1.0)
    cost = np.array([values(item) for item in items], dtype=float) * sign
    kept = []
    for i, item in enumerate(items):
        if np.isnan(cost[i]).any():
            continue
        no_worse = (cost <= cost[i]).all(axis=1)
        better = no_worse & (cost < cost[i]).any(axis=1)
        earlier_twin = (cost[:i] == cost[i]).all(axis=1).any()
        if not better.any() and not earlier_twin:
            kept.append(item)
    return kept
