"""Is the candidate slower? The median of log ratios of neighbouring times, and how sure it is.

Two samples of a pair are taken one after the other, in turning order, so that what drifts (clock, temperature,
neighbours) hits both. What a process brings with it (where its memory lies) stays the same for all its pairs: pairs
come in blocks, one a fresh pair of processes, and the bootstrap draws blocks first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from moe_codesign.arrays import F64

Word = Literal["faster", "same", "slower", "unclear"]

MARGIN = 0.05
"""A ratio nearer to 1 is no news. Chosen, as is half of it for the interval: pairs of fresh processes of the same code
differ by some percent, and with these eight of them that differ by 5 % (one standard deviation) call noise slower in
under 1 % of runs and find a tenth in over 95 % (tests/regression/test_verdict.py)."""
LEVEL = 0.98
"""Level of the interval."""
_DRAWS = 2000


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


def judge(blocks: Sequence[F64], *, margin: float = MARGIN, seed: int = 0) -> Verdict:
    """The verdict on log ratios (candidate over other), an array a block.

    ``slower``: the interval lies beyond half the margin, and its middle beyond the margin. ``same``: all of it within
    the margin. ``unclear``: neither; more pairs are needed.

    Raises:
        ValueError: no block, or an empty one.
    """
    if not blocks or not all(len(block) for block in blocks):
        raise ValueError("a verdict needs blocks with at least one pair each")
    rng = np.random.default_rng(seed)
    sizes = np.array([len(block) for block in blocks])
    padded = np.zeros((len(blocks), sizes.max()))
    for row, block in zip(padded, blocks, strict=True):
        row[: len(block)] = block
    chosen = rng.integers(len(blocks), size=(_DRAWS, len(blocks)))
    places = (rng.random((_DRAWS, len(blocks), int(sizes.min()))) * sizes[chosen][..., None]).astype(int)
    medians = np.median(padded[chosen[..., None], places].reshape(_DRAWS, -1), axis=1)
    low, high = np.quantile(medians, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    middle = float(np.median(np.concatenate(list(blocks))))
    edge = float(np.log1p(margin))
    word: Word = "unclear"
    if low > edge / 2 and middle > edge:
        word = "slower"
    elif high < -edge / 2 and middle < -edge:
        word = "faster"
    elif low > -edge and high < edge:
        word = "same"
    ratio, low, high = (float(np.exp(value)) for value in (middle, low, high))
    return Verdict(word, ratio, low, high, int(sizes.sum()))
