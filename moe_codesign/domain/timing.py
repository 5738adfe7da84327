"""A time, and how far it may be trusted."""

import math
from dataclasses import dataclass, field
from typing import Literal

from pydantic import ConfigDict

Grade = Literal["measured", "simulated", "modelled", "datasheet"]
GRADES: tuple[Grade, ...] = ("measured", "simulated", "modelled", "datasheet")


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Latency of one layer or kernel with its evidence.

    Args:
        grade: where the number comes from.
        latency_us: the median, or the estimate.
        low_us, high_us: the interval that goes with the grade (measured: 5th and 95th percentile).
        bound_us: the physical bound, max of FLOPs / peak and bytes / bandwidth.
        limiter: the largest part of the time.
        parts_us: where the time goes, by name.
        samples_us: every sample of a measurement.

    Raises:
        ValueError: a number that is not finite, or is below 0 where that means nothing; an interval that does not hold
            its own middle, or an estimate below the bound. Each is a bug.
    """

    grade: Grade
    latency_us: float
    low_us: float
    high_us: float
    bound_us: float
    limiter: str
    parts_us: dict[str, float] = field(default_factory=dict)
    samples_us: tuple[float, ...] = ()

    __pydantic_config__ = ConfigDict(extra="forbid")

    def __post_init__(self) -> None:
        if self.grade not in GRADES:
            raise ValueError(f"unknown grade {self.grade!r}")
        for name in ("latency_us", "low_us", "high_us", "bound_us"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name} = {getattr(self, name)} is not finite")
        if self.bound_us < 0:
            raise ValueError(f"bound_us = {self.bound_us} is below 0")
        for part, us in self.parts_us.items():
            if not (math.isfinite(us) and us >= 0):
                raise ValueError(f"part {part} = {us} us is not a time")
        if not all(math.isfinite(us) and us > 0 for us in self.samples_us):
            raise ValueError("a sample is not a time above 0")
        if not 0 < self.low_us <= self.latency_us <= self.high_us:
            raise ValueError(f"interval {self.low_us}..{self.high_us} us does not hold {self.latency_us} us")
        if self.grade != "measured" and self.low_us < self.bound_us * (1 - 1e-9):
            raise ValueError(f"{self.grade} {self.low_us} us is below the physical bound {self.bound_us} us")

    @property
    def implausible(self) -> bool:
        """A measurement faster than physics allows: never wins."""
        return self.latency_us < self.bound_us * (1 - 1e-9)

    @property
    def share_of_bound(self) -> float:
        """Physical bound over time: 1 is as fast as the chip can be."""
        return self.bound_us / self.latency_us
