"""Every shape of a space priced by one goal on one chip, and single shapes with their tiles and intervals."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from moe_codesign.answers.goal import Goal
from moe_codesign.arrays import F64
from moe_codesign.chips import Chip
from moe_codesign.compiler.kernels import default_tiles
from moe_codesign.compiler.tile_table import Tables
from moe_codesign.cost.estimate import Answer, Estimate, attempt, slowest
from moe_codesign.cost.memory import over_memory
from moe_codesign.cost.ours.model import estimate_layer
from moe_codesign.cost.ratio import Ratio, product
from moe_codesign.domain.failure import Failure
from moe_codesign.domain.metrics import Known
from moe_codesign.domain.pair import Pair
from moe_codesign.domain.rank import rank_work
from moe_codesign.domain.shape import MoEShape
from moe_codesign.domain.tile_pair import TilePair
from moe_codesign.domain.timing import GRADES, Grade
from moe_codesign.domain.workload import Workload
from moe_codesign.errors import UserError
from moe_codesign.models import find_model
from moe_codesign.study.batch import batch_times
from moe_codesign.study.evaluate import Evaluator
from moe_codesign.study.points import point_count, points
from moe_codesign.study.space import Space
from moe_codesign.study.space_tables import MOST_POINTS, TypedWorkload
from moe_codesign.study.tile_values import check_tiles
from moe_kernels.kernel import Op, up_op

Tiles = Literal["best", "default"]
"""The fastest of the space's tiles, or the tile that an untuned user of the kernel gets."""
ChipProgress = Callable[[str, int, int], None]
"""Called with (chip, shapes done, shapes of the space)."""
_AT_ONCE = 1024
"""Shapes that are timed at a time."""


@dataclass(frozen=True)
class Cost:
    """What a shape costs on a chip, by a goal; an estimate.

    Args:
        chip: its name.
        shape: of the layer.
        value: the cost. low, high: its interval.
        grade: the weakest of its times.
        pairs: the shape with its tiles and time under each workload that the goal is of.
        shares: how much of the cost each of them is; they sum to 1.
    """

    chip: str
    shape: MoEShape
    value: float
    low: float
    high: float
    grade: Grade
    pairs: tuple[Pair, ...] = field(hash=False)
    shares: tuple[float, ...]

    @property
    def tiles(self) -> dict[str, str]:
        """Tiles of GEMM 1 and 2, as tables print them, by workload; empty at grade ``datasheet``."""
        return {pair.workload.name: pair.tiles.label() for pair in self.pairs if pair.tiles is not None}

    @property
    def notes(self) -> tuple[str, ...]:
        """Why its times deserve less trust."""
        return tuple(dict.fromkeys(note for pair in self.pairs for note in pair.notes))

    def over(self, other: "Cost") -> Ratio:
        """This cost over another one by the same goal; see :func:`product_of_costs`."""
        return product_of_costs([(self, 1), (other, -1)])


def product_of_costs(factors: Sequence[tuple[Cost, int]]) -> Ratio:
    """The product of costs by one goal, each to a whole power, with the interval of the times that they are of.

    Under several workloads the times' errors go together, each with its workload's mean share of the costs.
    """
    value = math.exp(math.fsum(power * math.log(cost.value) for cost, power in factors))
    shares = np.mean([cost.shares for cost, _ in factors], axis=0)
    halves = [product([(cost.pairs[place], power) for cost, power in factors]).log_half for place in range(len(shares))]
    return Ratio.around(value, float(shares @ np.array(halves)))


class Priced:
    """A space on one chip, by one goal. Times are estimates, also where the chip is in this machine.

    Args:
        space: what may vary.
        chip: where.
        goal: what a shape costs.
        reference: the space's.
        tables: compiled tiles.
    """

    def __init__(self, space: Space, chip: Chip, goal: Goal, reference: MoEShape, tables: Tables) -> None:
        self.space, self.chip, self.goal, self.reference, self.tables = space, chip, goal, reference, tables
        self._evaluator = Evaluator(space, chip, reference, tables, None)
        by_name = {table.name: table for table in self._evaluator.workloads}
        self.workloads: list[TypedWorkload] = [by_name[name] for name in goal.shares]
        self.refused: Counter[str] = Counter()
        """How many shapes may not be timed, by the kind of what is in the way."""
        self._costs: dict[tuple[MoEShape, Tiles], Cost | Failure] = {}

    def prices(self, progress: ChipProgress | None = None) -> F64:
        """The cost of every shape of the space with its best tiles [points]; NaN where it may not be timed."""
        total = point_count(self.space)
        found = np.full(total, np.nan)
        self.refused.clear()
        for start in range(0, total, _AT_ONCE):
            last = min(start + _AT_ONCE, total)
            self._price(found, range(start, last))
            if progress:
                progress(self.chip.name, last, total)
        return found

    def _price(self, found: F64, numbers: range) -> None:
        shapes: dict[int, MoEShape] = {}
        for number, (_, shape) in points(self.space, self.reference, numbers):
            if isinstance(shape, Failure):
                self.refused[shape.kind] += 1
            else:
                shapes[number] = shape
        failures = self._evaluator.judged(list(shapes.values())).failures
        self.refused.update(failure.kind for failure in failures if failure is not None)
        good = {
            number: shape for (number, shape), failure in zip(shapes.items(), failures, strict=True) if failure is None
        }
        if not good:
            return
        places = np.array(list(good))
        layers = [table.by_layer(None) for table in self.workloads]
        tiles = self._evaluator.tile_space
        times = [
            batch_times(self.tables, self.chip, list(good.values()), one, tiles).latency_us(len(good)) for one in layers
        ]
        # What a cost is of a time depends on the workload and on how many layers there are, and not on the shape else.
        num_layers = next(iter(good.values())).num_layers
        found[places] = 0.0
        for table, one, us in zip(self.workloads, layers, times, strict=True):
            of_one_us = Known(1.0, num_layers, 1.0, next(iter(one.values())))
            found[places] += us * self.goal.cost_under(table.name, of_one_us, self.chip)
        if lost := int(np.isnan(found[places]).sum()):
            self.refused["no time"] += lost

    def shape(self, number: int) -> MoEShape:
        """The shape of a point that has a price."""
        ((_, (_, shape)),) = points(self.space, self.reference, [number])
        assert isinstance(shape, MoEShape), "a point with a price is a shape"
        return shape

    def cost(self, shape: MoEShape, tiles: Tiles = "best") -> Cost | Failure:
        """One shape's cost, or why it has none. The space's constraints are not asked."""
        key = (shape.replaced(), tiles)
        if key not in self._costs:
            self._costs[key] = self._cost(*key)
        return self._costs[key]

    def obstacle(self, shape: MoEShape) -> Failure | None:
        """What the space has against a shape on this chip, as memory or the split; None where it may be timed."""
        return self._evaluator.judged([shape]).failures[0]

    def _cost(self, shape: MoEShape, tiles: Tiles) -> Cost | Failure:
        pairs: list[Pair] = []
        quality = self._evaluator.judge.qualities([shape]).of(0)
        for table in self.workloads:
            layers = table.by_layer(None)
            layer, answer = slowest({key: self._answer(shape, one, tiles) for key, one in layers.items()})
            if isinstance(answer, Failure):
                return answer
            pairs.append(
                Pair(
                    chip=self.chip.name,
                    shape=shape,
                    workload=layers[layer],
                    kernel=answer.kernel,
                    tiles=TilePair(*answer.tiles) if answer.tiles else None,
                    timing=answer.timing,
                    quality_ratio=quality.ratio,
                    quality_by_law=quality.by_law,
                    outside=self._evaluator.judge.outside(shape),
                    notes=(*over_memory(self.chip, shape, layers[layer]), *answer.notes),
                )
            )

        def of(end: Literal["latency_us", "low_us", "high_us"]) -> float:
            known = [Known.of(pair)._replace(latency_us=getattr(pair.timing, end)) for pair in pairs]
            return self.goal.cost(known, self.chip)

        value = of("latency_us")
        return Cost(
            chip=self.chip.name,
            shape=shape,
            value=value,
            low=of("low_us"),
            high=of("high_us"),
            grade=max((pair.timing.grade for pair in pairs), key=GRADES.index),
            pairs=tuple(pairs),
            shares=tuple(self.goal.cost_under(pair.workload.name, Known.of(pair), self.chip) / value for pair in pairs),
        )

    def _answer(self, shape: MoEShape, workload: Workload, tiles: Tiles) -> Answer:
        def ask() -> Estimate:
            work = rank_work(shape, workload)
            kernel = self._evaluator.kernel
            space = self._evaluator.tile_space
            if tiles == "best" or kernel is None or work.dtype not in kernel.dtypes:
                return estimate_layer(self.tables, self.chip, work, space=space)
            pair = default_tiles(kernel, work, self.chip.target)
            return estimate_layer(self.tables, self.chip, work, tiles=pair, space=space)

        return attempt(ask)


def price_on(
    space: Space,
    tables: Tables,
    objective: str | None = None,
    shares: Mapping[str, float] | None = None,
) -> dict[str, Priced]:
    """A space on each of its chips, by the chip's name; everything that has to be compiled is compiled together.

    Args:
        space: what may vary, and on which chips.
        tables: compiled tiles.
        objective, shares: what a shape costs; see :meth:`moe_codesign.answers.goal.Goal.of`.

    Raises:
        UserError: there is no such goal, the space has too many shapes, its tiles are not the kernel's, or a compiler
            is not installed.
    """
    chips = space.chips
    goal = Goal.of(space, chips, objective, shares)
    if (count := point_count(space)) > MOST_POINTS:
        raise UserError(
            f"{space.name} has {count:,} shapes, and every one is timed", fix=f"coarsen it to {MOST_POINTS:,} or fewer"
        )
    reference = find_model(space.reference)
    ops: tuple[Op, ...] = (up_op(gated=reference.gated), "down")
    for chip in chips:
        check_tiles(space, chip, ops)
    wanted = [(chip, space.tile_space(chip), ops, w.dtype) for chip in chips for w in space.workloads_on(chip)]
    tables.prepare(wanted)
    return {chip.name: Priced(space, chip, goal, reference, tables) for chip in chips}


def best_of(priced: Priced, prices: F64) -> Cost:
    """The shape that costs least on the chip, the first of equal ones.

    Raises:
        UserError: no shape of the space may be timed there.
    """
    if np.isnan(prices).all():
        why = ", ".join(f"{count:,} {kind}" for kind, count in priced.refused.most_common())
        raise UserError(
            f"no shape of {priced.space.name} may be timed on {priced.chip.name} ({why})",
            fix="loosen the constraint, or raise tp or ep there",
        )
    cost = priced.cost(priced.shape(int(np.nanargmin(prices))))
    assert isinstance(cost, Cost), "a shape with a price has a time"
    return cost
