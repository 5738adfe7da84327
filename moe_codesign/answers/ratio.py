"""How sure a ratio of estimated costs is."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol


class Uncertain(Protocol):
    """A number above 0 with its interval. Two that are equal are the same number, with the same error."""

    @property
    def value(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...
    def __hash__(self) -> int: ...


@dataclass(frozen=True)
class Ratio:
    """A ratio with its interval.

    Args:
        value: the ratio.
        low, high: its interval.
        within_error: the interval holds 1: whether the one or the other is larger is not known.
    """

    value: float
    low: float
    high: float
    within_error: bool


def ratio_of(over: Uncertain, under: Uncertain) -> Ratio:
    """One number over another; see :func:`product_of`."""
    return product_of([(over, 1), (under, -1)])


def product_of(factors: Iterable[tuple[Uncertain, int]]) -> Ratio:
    """The product of numbers, each to a whole power.

    The interval is a conservative one: it takes the numbers' errors for independent, so that the squares of their
    logarithms add up. Errors of one cost model on one chip are mostly shared, and a ratio's interval is then narrower
    than this. A number that is there with several powers counts with their sum: over itself it is exactly 1.

    This function alone knows how errors go together; a better rule replaces it here.
    """
    powers: Counter[Uncertain] = Counter()
    for number, power in factors:
        powers[number] += power
    middle = below = above = 0.0
    for number, power in powers.items():
        down, up = math.log(number.value / number.low), math.log(number.high / number.value)
        middle += power * math.log(number.value)
        below += (power * (down if power > 0 else up)) ** 2
        above += (power * (up if power > 0 else down)) ** 2
    low, high = math.exp(middle - math.sqrt(below)), math.exp(middle + math.sqrt(above))
    return Ratio(math.exp(middle), low, high, low <= 1.0 <= high)
