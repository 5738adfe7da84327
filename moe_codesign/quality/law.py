"""What every scaling law can be asked: how good a model of a shape becomes by training."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from moe_codesign.arrays import F64, Mask
from moe_codesign.quality.features import Features

Evidence = Literal["paper", "transcripts", "runs"]
"""Where a law's coefficients are from: read in the paper's own text, read in at least two independent transcriptions of
it, or fitted here to training runs of the user's own."""
Kind = Literal["size", "shape", "condition"]
_SIZES = np.geomspace(1e-3, 1e3, 1201)
"""Sizes of the reference, times its own, among which the one of equal loss is looked up: 1.2 % apart, interpolated."""


@dataclass(frozen=True)
class Range:
    """What a law's experiments covered of one quantity.

    Args:
        of: the quantity, in words.
        low: the least value that was trained.
        high: the largest.
        kind: a ``size`` only says how large the models were: every frontier model is larger than any experiment, so a
            law is carried on beyond it and says how far. Outside of a ``shape`` the law's word is an extrapolation in
            what is compared. A ``condition`` is what the law's formula takes for granted: where it does not hold there
            is no answer.
    """

    of: str
    low: float
    high: float
    kind: Kind = "shape"

    def holds(self, values: F64) -> Mask:
        """Whether values lie inside, bool [shapes]."""
        return np.asarray((values >= self.low) & (values <= self.high))

    def outside(self, value: float) -> str:
        """How far outside, in words; empty inside."""
        if self.low <= value <= self.high:
            return ""
        edge, where = (self.low, "below") if value < self.low else (self.high, "above")
        times = max(value / edge, edge / value) if value > 0 and edge > 0 else float("inf")
        factor = f"{times:,.0f} times" if times >= 10 else f"{times:.2g} times"
        return f"{self.of} {value:.3g} is {factor} {where} the {edge:.3g} of its experiments"


class Law(Protocol):
    """A scaling law. Its module is its documentation: the paper, the formula, and where its coefficients were read."""

    @property
    def name(self) -> str:
        """As space files spell it."""
        ...

    @property
    def paper(self) -> str:
        """Authors and number on arXiv, for reports."""
        ...

    @property
    def measure(self) -> str:
        """What :meth:`ratio` is a ratio of, in a few words for reports."""
        ...

    @property
    def evidence(self) -> Evidence:
        """Where its coefficients are from."""
        ...

    def covered(self, features: Features) -> list[tuple[Range, F64]]:
        """Each range of its experiments, with the shapes' values of that quantity."""
        ...

    def loss(self, features: Features) -> F64:
        """What it says of the shapes alone, float64 [shapes]; less is better, and only its order means something."""
        ...

    def ratio(self, features: Features, reference: Features) -> F64:
        """How good the shapes are beside one reference, float64 [shapes]; above 1 is better.

        Args:
            features: of the shapes.
            reference: of the one reference.
        """
        ...


SIZE_MEASURE = "size that the reference would need for the same loss"


class SizeLaw(ABC):
    """A law whose ratio is how many times its size the reference would need, on its own tokens, for the shape's loss.

    Losses of different laws cannot be compared with one another; this number can.
    """

    measure = SIZE_MEASURE

    @abstractmethod
    def loss(self, features: Features) -> F64:
        """See :class:`Law`."""

    def ratio(self, features: Features, reference: Features) -> F64:
        """See :class:`Law`. Held within 0.001 and 1000, beyond which no law has a say."""
        of_sizes = self.loss(reference.scaled(_SIZES))
        own = self.loss(features)
        # Larger is better in every law; np.interp wants what it looks up to rise.
        return np.asarray(np.exp(np.interp(-own, -of_sizes, np.log(_SIZES))))
