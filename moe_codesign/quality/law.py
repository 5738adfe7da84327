"""What a scaling law says of a shape, and what every law can be asked."""

from dataclasses import dataclass
from typing import Protocol

from moe_codesign.domain.shape import MoEShape


@dataclass(frozen=True)
class Quality:
    """What a law says of one shape.

    Args:
        value: the law's own measure, in which more is better; only ratios under one law mean something.
        outside: what lies outside of the range of the experiments that the law was fitted to, in words.
    """

    value: float
    outside: tuple[str, ...]

    def ratio(self, reference: "Quality") -> float:
        """Above 1: better than the reference, by the law's measure."""
        return self.value / reference.value


class Law(Protocol):
    """A scaling law: how good a model of a shape becomes by training."""

    @property
    def measure(self) -> str:
        """What ``Quality.value`` is, in a few words for reports."""
        ...

    def quality(self, shape: MoEShape, training_tokens: float) -> Quality:
        """The quality of ``shape`` after that many tokens."""
        ...
