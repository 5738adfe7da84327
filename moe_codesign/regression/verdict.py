"""Is the candidate slower? The median of log ratios of neighbouring times, and how sure it is.

Two samples of a pair are taken one after the other, in turning order, so that what drifts (clock, temperature,
neighbours) hits both. What a process brings with it (where its memory lies) stays the same for all its pairs: pairs
come in blocks, one for each fresh pair of processes, and the interval is that of the blocks' medians.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Literal

import numpy as np

from moe_codesign.arrays import F64
from moe_codesign.measure.samples import typical

Word = Literal["faster", "same", "slower", "unclear"]

MARGIN = 0.03
"""A ratio nearer to 1 is no news. Chosen, as is half of it for the interval: with it a slowdown of 5 % is found in over
90 % of runs where samples scatter by 2 %, and noise is called slower in under 1 %, also where fresh processes of the
same code differ by 5 % (tests/regression/test_verdict.py)."""
LEVEL = 0.99
"""Level of the interval."""
BLOCKS = 8
"""Blocks of a run; as many again where the verdict is unclear."""
_FAR = float(np.log(2.0))
"""Where every block's ratio is beyond a factor of two, two blocks are enough."""


@dataclass(frozen=True)
class Verdict:
    """``ratio``: candidate's time over the other's; ``low``, ``high`` its interval."""

    word: Word
    ratio: float
    low: float
    high: float
    pairs: int

    def describe(self) -> str:
        return f"{self.word}: {self.ratio:.3f} times the other's, {self.low:.3f} .. {self.high:.3f}, {self.pairs} pairs"


def log_ratio(own: Sequence[float], other: Sequence[float]) -> float:
    """Of the times of two neighbouring samples, each of one run or more."""
    return float(np.log(typical(own) / typical(other)))


def decide(block: Callable[[], F64], *, margin: float = MARGIN, late: Callable[[], bool] = lambda: False) -> Verdict:
    """Take blocks of log ratios until the verdict is clear, and no more than it takes.

    Args:
        block: the log ratios of one fresh pair of processes.
        margin: as for :func:`judge`.
        late: whether time is up: the verdict is then that of the blocks there are.
    """
    blocks: list[F64] = []
    while True:
        blocks.append(block())
        far = _far(blocks)
        done = len(blocks) >= 2 * BLOCKS or late()
        if not done and not (far and len(blocks) > 1) and len(blocks) != BLOCKS:
            continue
        verdict = judge(blocks, margin=margin)
        if len(blocks) < BLOCKS and not far:
            # Too few to tell a process that is placed badly from a slow kernel.
            verdict = replace(verdict, word="unclear")
        if done or verdict.word != "unclear":
            return verdict


def _far(blocks: Sequence[F64]) -> bool:
    middles = [float(np.median(block)) for block in blocks]
    return min(middles) > _FAR or max(middles) < -_FAR


def judge(blocks: Sequence[F64], *, margin: float = MARGIN) -> Verdict:
    """The verdict on log ratios (candidate over other), an array a block.

    ``slower``: the interval lies beyond half the margin, and its middle beyond the margin. ``same``: all of it within
    the margin. ``unclear``: neither; more pairs are needed.

    Raises:
        ValueError: no block, or an empty one.
    """
    if not blocks or not all(len(block) for block in blocks):
        raise ValueError("a verdict needs blocks with at least one pair each")
    middle = float(np.median(np.concatenate(list(blocks))))
    # Of a single block there are its pairs alone, which do not show how processes differ.
    reach = _student(np.array([np.median(block) for block in blocks]) if len(blocks) > 1 else blocks[0])
    low, high = middle - reach, middle + reach
    edge = float(np.log1p(margin))
    word: Word = "unclear"
    if low > edge / 2 and middle > edge:
        word = "slower"
    elif high < -edge / 2 and middle < -edge:
        word = "faster"
    elif low > -edge and high < edge:
        word = "same"
    with np.errstate(over="ignore"):
        ratio, low, high = (float(np.exp(value)) for value in (middle, low, high))
    return Verdict(word, ratio, low, high, sum(len(block) for block in blocks))


def _student(values: F64) -> float:
    """How far the interval of Student's reaches from the middle of such values; infinite for one.

    The quantile is Hill's (1970): within 2 % from 7 degrees of freedom on, and below them too small.
    """
    freedom = len(values) - 1
    if not freedom:
        return math.inf
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    quantile = z + first / freedom + second / freedom**2
    return quantile * float(np.std(values, ddof=1)) / math.sqrt(len(values))
