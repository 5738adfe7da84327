"""The items of a list that no other item beats."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from moe_codesign.arrays import F64, Mask

T = TypeVar("T")
_AT_ONCE = 256
"""Rows that are compared with the frontier at a time."""


def frontier(items: Sequence[T], values: Callable[[T], Sequence[float]], maximise: Sequence[bool]) -> list[T]:
    """The items that no other one beats in every value, in their order; see :func:`non_dominated`."""
    if not items:
        return []
    kept = non_dominated(np.array([values(item) for item in items], dtype=float), maximise)
    return [items[index] for index in kept]


def non_dominated(values: F64, maximise: Sequence[bool]) -> list[int]:
    """Which rows no other row beats in every value.

    Args:
        values: float64 [items, values].
        maximise: for each value, whether more is better.

    Returns:
        Indices of rows, ascending. The first of several rows with equal values is kept. A row with a NaN never is.
    """
    cost = values * np.where(np.asarray(maximise), -1.0, 1.0)
    known = np.flatnonzero(~np.isnan(cost).any(axis=1))
    # Sorted by the first value, then the next, a row can only be beaten by one before it; of equals the first is first.
    order = known[np.lexsort((known, *cost[known].T[::-1]))]
    front, kept = cost[:0], order[:0]
    for start in range(0, len(order), _AT_ONCE):
        block = order[start : start + _AT_ONCE]
        block = block[~_beaten(cost[block], front)]
        # Among themselves, too: a row by those before it.
        block = block[[not _beaten(cost[block[i : i + 1]], cost[block[:i]])[0] for i in range(len(block))]]
        front, kept = np.vstack([front, cost[block]]), np.concatenate([kept, block])
    return sorted(kept.tolist())


def slack(values: F64, front: F64, maximise: Sequence[bool]) -> F64:
    """By which factor each row would have to be better in every value, less one, to be beaten by no row of a frontier.

    Args:
        values: float64 [items, values], all above 0.
        front: float64 [frontier, values].
        maximise: for each value, whether more is better.

    Returns:
        float64 [items]; 0 on the frontier.
    """
    sign = np.where(np.asarray(maximise), -1.0, 1.0)
    logs, of_front = np.log(values) * sign, np.log(front) * sign
    found = np.empty(len(logs))
    for start in range(0, len(logs), _AT_ONCE):
        block = logs[start : start + _AT_ONCE]
        # By a row of the frontier an item is beaten until it is better by the least of the differences.
        found[start : start + _AT_ONCE] = (block[:, None] - of_front[None]).min(axis=2).max(axis=1)
    return np.expm1(np.maximum(found, 0.0))


def _beaten(rows: F64, front: F64) -> Mask:
    """Whether some row of ``front`` is no worse in every value, bool [rows]."""
    no_worse: Mask = np.all(front[None] <= rows[:, None], axis=2)
    return np.asarray(np.any(no_worse, axis=1))
