"""What a chip, tiles and a shape each gain, alone, one after another in every order, and together."""

import itertools
from dataclasses import dataclass
from typing import Literal, get_args

from moe_codesign.answers.lock_in import chip_notes
from moe_codesign.answers.money import cost_notes
from moe_codesign.answers.priced import ChipProgress, Cost, Priced, Tiles, best_of, product_of_costs
from moe_codesign.cost.ratio import Ratio
from moe_codesign.domain.failure import Failure
from moe_codesign.domain.shape import MoEShape
from moe_codesign.errors import UserError

Layer = Literal["chip", "tiles", "shape"]
LAYERS: tuple[Layer, ...] = get_args(Layer)
"""What may change: from one chip to another, from default to best tiles, from the reference to the found shape."""
_Corner = frozenset[Layer]
"""Which layers have changed."""


@dataclass(frozen=True)
class Step:
    """One layer's gain after others have changed: the cost before over the cost after."""

    layer: Layer
    gain: Ratio


@dataclass(frozen=True)
class ThreeLayers:
    """The three layers of a gain.

    Args:
        space: its name. goal: what costs mean, in words. unit: of costs.
        from_chip, to_chip: names of the chips.
        reference: the space's reference model. found: the shape of the space that costs least on ``to_chip``.
        corners: the cost of each state, by the layers that have changed, as ``chip+tiles``; ``start`` for none.
        alone: each layer's gain where nothing else has changed.
        orders: the gains one after another, in each of the six orders; the product of each is ``together``.
        product: of the gains alone.
        together: the gain of all three.
        product_over_together: 1 where the gains multiply; above it they are worth less together than each alone says.
        money: by which prices or power costs are, a line for each chip; empty where they are times.
    """

    space: str
    goal: str
    unit: str
    from_chip: str
    to_chip: str
    reference: str
    found: MoEShape
    corners: dict[str, Cost]
    alone: dict[Layer, Ratio]
    orders: list[tuple[Step, ...]]
    product: Ratio
    together: Ratio
    product_over_together: Ratio
    money: list[str]

    @property
    def notes(self) -> list[str]:
        """By which prices costs are, and why times deserve less trust, each once with its chips."""
        return self.money + chip_notes(list(self.corners.values()))


def three_layers_of(
    start: Priced, target: Priced, reference: MoEShape, progress: ChipProgress | None = None
) -> ThreeLayers:
    """The layers between two chips on which one space is priced.

    The found shape is one for all states: the best of the space on the target with its best tiles. It is timed on both
    chips, also where the space's memory constraint would keep it from one.

    Raises:
        UserError: no shape of the space may be timed on the target, or a state has no time.
    """
    found = best_of(target, target.prices(progress)).shape
    corners = {
        corner: _cost(target if "chip" in corner else start, found if "shape" in corner else reference, corner)
        for size in range(len(LAYERS) + 1)
        for corner in map(frozenset, itertools.combinations(LAYERS, size))
    }
    nothing: _Corner = frozenset()
    first, last = corners[nothing], corners[frozenset(LAYERS)]
    single = [corners[frozenset((layer,))] for layer in LAYERS]
    # The product of the gains alone is first**3 over the three states; over the joint gain, one power less.
    each = [(one, -1) for one in single]
    return ThreeLayers(
        space=start.space.name,
        goal=str(start.goal),
        unit=start.goal.unit,
        from_chip=start.chip.name,
        to_chip=target.chip.name,
        reference=reference.name or reference.label(),
        found=found,
        corners={_name(corner): cost for corner, cost in corners.items()},
        alone={layer: first.over(one) for layer, one in zip(LAYERS, single, strict=True)},
        orders=[_steps(corners, order) for order in itertools.permutations(LAYERS)],
        product=product_of_costs([(first, 3), *each]),
        together=first.over(last),
        product_over_together=product_of_costs([(first, 2), (last, 1), *each]),
        money=cost_notes([start.chip, target.chip], [start.goal.metric.needs]),
    )


def _steps(corners: dict[_Corner, Cost], order: tuple[Layer, ...]) -> tuple[Step, ...]:
    steps = []
    changed: _Corner = frozenset()
    for layer in order:
        after = changed | {layer}
        steps.append(Step(layer, corners[changed].over(corners[after])))
        changed = after
    return tuple(steps)


def _cost(priced: Priced, shape: MoEShape, corner: _Corner) -> Cost:
    tiles: Tiles = "best" if "tiles" in corner else "default"
    cost = priced.cost(shape, tiles)
    if isinstance(cost, Failure):
        raise UserError(
            f"{shape.name or shape.label()} with {tiles} tiles has no time on {priced.chip.name} ({cost})",
            fix="change the split, or the sizes of the space",
        )
    return cost


def _name(corner: _Corner) -> str:
    return "+".join(layer for layer in LAYERS if layer in corner) or "start"
