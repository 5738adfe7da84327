"""One shape for several chips, and what it costs against a shape for each."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from moe_codesign.answers.lock_in import chip_notes
from moe_codesign.answers.money import cost_notes
from moe_codesign.answers.priced import ChipProgress, Cost, Priced, best_of
from moe_codesign.arrays import F64
from moe_codesign.cost.ratio import Ratio
from moe_codesign.domain.failure import Failure
from moe_codesign.domain.shape import MoEShape
from moe_codesign.errors import UserError

By = Literal["worst", "weighted"]
"""What is least: the highest of the chips' costs over their own best, or the weighted mean of them."""


@dataclass(frozen=True)
class OnChip:
    """The one shape on a chip.

    Args:
        chip: its name.
        weight: its share, where the mean is taken.
        cost: of the one shape, with the chip's best tiles.
        own_best: of the chip's own best shape.
        over_own_best: the one cost over the other: the price of one shape for all, on this chip.
    """

    chip: str
    weight: float
    cost: Cost
    own_best: Cost
    over_own_best: Ratio


@dataclass(frozen=True)
class Robust:
    """One shape for several chips.

    Args:
        space: its name. goal: what costs mean, in words. unit: of costs.
        by: what was made least.
        reference: the space's reference model. reference_price: its own number of that kind, None where it has none.
        shape: the one shape.
        price: the highest of the chips' ratios, or their weighted mean; 1 is no price at all.
        chips: each chip's part of it.
        feasible: how many shapes may be timed on every chip. points: how many the space has.
        money: by which prices or power costs are, a line for each chip; empty where they are times.
    """

    space: str
    goal: str
    unit: str
    by: By
    reference: str
    reference_price: float | None
    shape: MoEShape
    price: float
    chips: list[OnChip]
    feasible: int
    points: int
    money: list[str]

    @property
    def notes(self) -> list[str]:
        """By which prices costs are, and why times deserve less trust, each once with its chips."""
        return self.money + chip_notes([cost for one in self.chips for cost in (one.cost, one.own_best)])


def robust_of(
    priced: Mapping[str, Priced],
    reference: MoEShape,
    by: By = "worst",
    weights: Mapping[str, float] | None = None,
    progress: ChipProgress | None = None,
) -> Robust:
    """The one shape of a space that is priced on some chips.

    Args:
        priced: the space on each chip.
        reference: the space's.
        by: what is made least.
        weights: of the chips; equal where left out.
        progress: called as shapes are priced.

    Raises:
        UserError: no shape may be timed on every chip, or a weight is wrong.
    """
    shares = _shares(list(priced), weights)
    columns = [one.prices(progress) for one in priced.values()]
    best = [best_of(one, prices) for one, prices in zip(priced.values(), columns, strict=True)]
    over = np.stack([prices / np.nanmin(prices) for prices in columns])
    prices = _combined(over, by, shares)
    if np.isnan(prices).all():
        raise UserError(
            f"no shape of {next(iter(priced.values())).space.name} may be timed on all of {', '.join(priced)}",
            fix="give fewer chips, or splits by chip so that the space fits each",
        )
    first = next(iter(priced.values()))
    shape = first.shape(int(np.nanargmin(prices)))
    chips = [
        OnChip(chip, float(share), cost, own, cost.over(own))
        for (chip, one), share, own in zip(priced.items(), shares, best, strict=True)
        if isinstance(cost := one.cost(shape), Cost)
    ]
    return Robust(
        space=first.space.name,
        goal=str(first.goal),
        unit=first.goal.unit,
        by=by,
        reference=reference.name or reference.label(),
        reference_price=_price_of(priced, best, reference, by, shares),
        shape=shape,
        price=float(np.nanmin(prices)),
        chips=chips,
        feasible=int((prices == prices).sum()),
        points=len(prices),
        money=cost_notes([one.chip for one in priced.values()], [first.goal.metric.needs]),
    )


def _price_of(priced: Mapping[str, Priced], best: list[Cost], shape: MoEShape, by: By, shares: F64) -> float | None:
    costs = [one.obstacle(shape) or one.cost(shape) for one in priced.values()]
    over = [cost.value / own.value for cost, own in zip(costs, best, strict=True) if not isinstance(cost, Failure)]
    if len(over) < len(best):
        return None
    return float(_combined(np.array(over)[:, None], by, shares)[0])


def _combined(over: F64, by: By, shares: F64) -> F64:
    """[points] of [chips, points]; NaN where a chip has none."""
    return np.asarray(over.max(axis=0) if by == "worst" else (over * shares[:, None]).sum(axis=0))


def _shares(chips: list[str], weights: Mapping[str, float] | None) -> F64:
    weights = weights or {}
    for chip, weight in weights.items():
        if chip not in chips:
            raise UserError("weights name", value=chip, fix="use one of " + ", ".join(chips))
        if not (np.isfinite(weight) and weight > 0):
            raise UserError(f"weight of {chip}", value=weight, fix="give a number above 0")
    found = np.array([weights.get(chip, 1.0) for chip in chips], dtype=float)
    return np.asarray(found / found.sum())
