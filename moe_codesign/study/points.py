"""Every shape of a space, in a fixed order."""

import math
from collections.abc import Iterable, Iterator

from moe_codesign.domain.failure import Failure, FailureKind
from moe_codesign.domain.shape import MoEShape
from moe_codesign.study.sizes import choice_values
from moe_codesign.study.space import Space

Point = tuple[dict[str, int], MoEShape | Failure]
"""The values of the fields that vary, and the shape, or why they make no shape."""


def varied(space: Space) -> dict[str, list[int]]:
    """Every value of each field that varies, the least first; a field with one value is left out."""
    values = {field: sorted(set(choice_values(choice))) for field, choice in space.shape.items()}
    return {field: found for field, found in values.items() if len(found) > 1}


def point_count(space: Space) -> int:
    """How many points a space has."""
    return math.prod(map(len, varied(space).values()))


def is_enumerated(space: Space) -> bool:
    """Whether every shape of the space is timed on chips that are estimated."""
    if space.sampler == "auto":
        return point_count(space) <= space.budget.exact_up_to
    return space.sampler == "exact"


def points(space: Space, reference: MoEShape, numbers: Iterable[int]) -> Iterator[tuple[int, Point]]:
    """Points of a space by their numbers, counted from 0 with the last field fastest.

    Fields that the space does not name are the reference's.
    """
    fixed = {field: choice_values(choice)[0] for field, choice in space.shape.items()}
    of_fields = varied(space)
    for number in numbers:
        values, rest = {}, number
        for field, every in reversed(of_fields.items()):
            rest, digit = divmod(rest, len(every))
            values[field] = every[digit]
        values = {field: values[field] for field in of_fields}
        yield number, (values, shape_of(reference, fixed | values))


def shape_of(reference: MoEShape, values: dict[str, int]) -> MoEShape | Failure:
    """The reference with these fields changed, or why the sizes make no shape."""
    active = values.get("num_experts_per_tok", reference.num_experts_per_tok)
    experts = values.get("num_experts", reference.num_experts)
    if active > experts:
        return Failure(FailureKind.SHAPE, f"num_experts_per_tok {active} exceeds {experts} experts")
    return reference.replaced(**values)
