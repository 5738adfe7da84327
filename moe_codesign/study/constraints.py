"""What a reported pair must meet, and which of it a shape breaks."""

from typing import Self

from pydantic import Field, model_validator

from moe_codesign.tables import Table


class Bounds(Table):
    """A range of a number; an end that is left out is open.

    Args:
        low: the least that is allowed.
        high: the most that is allowed.
    """

    low: float | None = Field(default=None, ge=0)
    high: float | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.low is None and self.high is None:
            raise ValueError("give low, high or both")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low = {self.low:g} is above high = {self.high:g}; swap them")
        return self

    def broken_by(self, value: float) -> str:
        """Which end the value is beyond, in words; empty inside."""
        if self.low is not None and value < self.low:
            return f"below {self.low:g}"
        return f"above {self.high:g}" if self.high is not None and value > self.high else ""

    def distance(self, value: float) -> float:
        """How far outside, relative to the end that it is beyond; 0 inside."""
        if self.low is not None and value < self.low:
            return 1.0 - value / self.low
        return value / self.high - 1.0 if self.high is not None and value > self.high > 0 else 0.0


class Constraints(Table):
    """What a reported pair must meet.

    Args:
        min_quality_ratio: the least quality over the reference's; 1.0 is "at least as good".
        memory_fraction: the share of a chip's memory that the weights of all MoE layers and the activations of one, on
            the mean of the ranks, may take.
        total_params: parameters of all MoE layers, routers among them, as { low = .., high = .. }; attention, dense
            layers and embeddings do not count.
        active_params: of these, the parameters that a token uses.
        total_params_ratio: total_params over the reference's.
        active_params_ratio: active_params over the reference's; { low = 0.95, high = 1.05 } holds a token's cost.
    """

    min_quality_ratio: float | None = Field(default=None, gt=0)
    memory_fraction: float = Field(default=0.9, gt=0, le=1)
    total_params: Bounds | None = None
    active_params: Bounds | None = None
    total_params_ratio: Bounds | None = None
    active_params_ratio: Bounds | None = None
