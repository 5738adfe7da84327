"""Every shape of a space, in a fixed order, and which of them lie beside each other."""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

from moe_codesign.domain.failure import Failure, FailureKind
from moe_codesign.domain.shape import LARGEST_SIZE, MoEShape
from moe_codesign.study.sizes import Held, choice_values
from moe_codesign.study.space import Space

Point = tuple[dict[str, int], MoEShape | Failure]
"""The values of the fields that vary, and the shape, or why they make no shape."""


def point_count(space: Space) -> int:
    """How many points a space has."""
    return math.prod(map(len, space.varied.values()))


def is_enumerated(space: Space, trials: int | None = None) -> bool:
    """Whether every shape of the space is timed on chips that are estimated.

    Args:
        space: what is searched.
        trials: as whoever runs the search asks for them; a number asks for that many trials, and so for a sampler.
    """
    if space.sampler == "auto":
        return trials is None and point_count(space) <= space.budget.exact_up_to
    return space.sampler == "exact"


def points(space: Space, reference: MoEShape, numbers: Iterable[int]) -> Iterator[tuple[int, Point]]:
    """Points of a space by their numbers, counted from 0 with the last field fastest.

    Fields that the space does not name are the reference's.
    """
    of_fields = space.varied
    for number in numbers:
        places = _places(number, [len(every) for every in of_fields.values()])
        values = {field: every[place] for (field, every), place in zip(of_fields.items(), places, strict=True)}
        yield number, (values, shape_of(space, reference, values))


def number_of(space: Space, params: Mapping[str, object]) -> int | None:
    """The number of a point by the values of its fields; None where one is missing or not in the space."""
    number = 0
    for field, every in space.varied.items():
        if (value := params.get(field)) not in every:
            return None
        number = number * len(every) + every.index(int(str(value)))
    return number


def nearest_number(space: Space, shape: MoEShape) -> int:
    """The point whose every field is nearest to a shape's."""
    number = 0
    for field, every in space.varied.items():
        own = getattr(shape, field) or 0
        number = number * len(every) + min(range(len(every)), key=lambda place: abs(every[place] - own))
    return number


def places(space: Space, number: int) -> tuple[int, ...]:
    """Where a point lies among the values of each field that varies."""
    return _places(number, [len(every) for every in space.varied.values()])


def number_at(space: Space, at: Sequence[int]) -> int:
    """The inverse of :func:`places`."""
    number = 0
    for place, every in zip(at, space.varied.values(), strict=True):
        number = number * len(every) + place
    return number


def neighbours(space: Space, number: int, fields: int = 1) -> list[int]:
    """The points that lie one step from a point in so many fields, in a fixed order."""
    counts = [len(every) for every in space.varied.values()]
    at = _places(number, counts)
    found = []
    for moved in itertools.combinations(range(len(counts)), fields):
        for steps in itertools.product((-1, 1), repeat=fields):
            near = list(at)
            for field, step in zip(moved, steps, strict=True):
                near[field] += step
            if all(0 <= near[field] < counts[field] for field in moved):
                found.append(number_at(space, near))
    return found


def shape_of(space: Space, reference: MoEShape, values: Mapping[str, int]) -> MoEShape | Failure:
    """The reference with the space's fields, or why the sizes make no shape.

    Args:
        space: whose fields that do not vary are taken, and whose depth may follow from the others.
        reference: of the fields that the space does not name.
        values: of the fields that vary.
    """
    fields: dict[str, int | None] = {field: choice_values(choice)[0] for field, choice in space.choices.items()}
    fields |= values
    if "moe_latent_size" in fields:
        fields["moe_latent_size"] = fields["moe_latent_size"] or None
    active = fields.get("num_experts_per_tok") or reference.num_experts_per_tok
    experts = fields.get("num_experts") or reference.num_experts
    if active > experts:
        return Failure(FailureKind.SHAPE, f"num_experts_per_tok {active} exceeds {experts} experts")
    shape = reference.replaced(**fields)
    return shape if space.held is None else _as_deep(shape, reference, space.held)


def _as_deep(shape: MoEShape, reference: MoEShape, held: Held) -> MoEShape | Failure:
    of_one_layer = getattr(shape, held) / shape.num_layers
    layers = max(1, round(getattr(reference, held) / of_one_layer))
    if layers > LARGEST_SIZE:
        return Failure(FailureKind.SHAPE, f"{layers:,} layers would hold {held} at the reference's")
    return shape.replaced(num_layers=layers)


def _places(number: int, counts: Sequence[int]) -> tuple[int, ...]:
    found = []
    for count in reversed(counts):
        number, place = divmod(number, count)
        found.append(place)
    return tuple(reversed(found))
