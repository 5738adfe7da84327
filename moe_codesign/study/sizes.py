"""What a field of a shape may be in a space file: a number, a list, or a span."""

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from moe_codesign.domain.shape import LARGEST_SIZE
from moe_codesign.tables import Table

Size = Annotated[int, Field(ge=0, le=LARGEST_SIZE)]


class Span(Table):
    """Whole numbers from ``low`` to ``high``, every ``step``."""

    low: Size
    high: Size
    step: PositiveInt = 1

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low = {self.low} is above high = {self.high}; swap them")
        return self

    def values(self) -> range:
        return range(self.low, self.high + 1, self.step)


Held = Literal["total_params", "active_params"]
"""What a depth that follows from the other fields keeps as the reference has it."""
Choice = Size | Annotated[list[Size], Field(min_length=1, max_length=1000)] | Span


def choice_values(choice: Choice) -> Sequence[int]:
    """Every value that a choice allows, the least first."""
    if isinstance(choice, Span):
        return choice.values()
    return [choice] if isinstance(choice, int) else sorted(choice)
