"""Why a candidate has no time: a kind that programs compare and count, and a text that people read."""

import math
from dataclasses import dataclass
from enum import StrEnum


class FailureKind(StrEnum):
    """What stood in the way of a candidate. The value is the word that reports print."""

    QUALITY = "quality"
    """The shape is worth less than the space's constraint asks for."""
    PARAMETERS = "parameters"
    """The shape has more or fewer parameters than the space's constraints allow."""
    SPLIT = "split"
    """The shape cannot be divided over the workload's ranks."""
    MEMORY = "memory"
    """The model's weights do not fit."""
    SHAPE = "shape"
    """The proposed sizes are no layer: more experts per token than there are experts."""
    COMPILER = "compiler"
    """The compiler, or the chip, refuses every tile that was asked for."""
    UNSUPPORTED = "unsupported"
    """The chip, the cost model or the routing cannot express the problem."""
    KERNEL = "kernel"
    """The kernel refuses the tile for a problem of this size."""
    MEASUREMENT = "measurement"
    """It was launched, and failed, gave a wrong result, or came out faster than physics allows."""
    ERROR = "error"
    """Its evaluation raised what nothing expects, or its process was killed again and again."""


@dataclass(frozen=True)
class Failure:
    """Why there is no time.

    Args:
        kind: which constraint or step failed.
        text: what exactly, in one sentence without the kind.
        violation: how far off it was, above 0. A sampler prefers failures that come closer to success.

    Raises:
        ValueError: the kind is not one of FailureKind, the text is empty, or the violation is not above 0 and finite.
    """

    kind: FailureKind
    text: str
    violation: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.kind, FailureKind):
            raise ValueError(f"failure kind {self.kind!r} is unknown")
        if not self.text.strip():
            raise ValueError(f"a failure of kind {self.kind} needs a text")
        if not (self.violation > 0 and math.isfinite(self.violation)):
            raise ValueError(f"violation {self.violation} is not above 0 and finite")

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"
