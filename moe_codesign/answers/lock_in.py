"""What it costs to run the shape that was chosen for one chip on another."""

from collections.abc import Mapping
from dataclasses import dataclass

from moe_codesign.answers.money import cost_notes
from moe_codesign.answers.priced import ChipProgress, Cost, Priced, best_of
from moe_codesign.cost.ratio import Ratio
from moe_codesign.domain.failure import Failure
from moe_codesign.domain.shape import MoEShape


@dataclass(frozen=True)
class LockInCell:
    """The shape that is best for one chip, run on another with that one's best tiles.

    Args:
        best_for: the chip whose best shape it is.
        run_on: the chip that runs it.
        cost: there; or why it has none there, as memory or the split.
        over_own_best: the cost over that of ``run_on``'s own best shape; None without a cost.
    """

    best_for: str
    run_on: str
    cost: Cost | Failure
    over_own_best: Ratio | None


@dataclass(frozen=True)
class LockIn:
    """A lock-in matrix.

    Args:
        space: its name. goal: what "best" means, in words. unit: of costs.
        reference: the space's reference model.
        best: each chip's own best shape of the space, by chip.
        reference_costs: the reference with its best tiles, by chip.
        feasible: how many shapes of the space may be timed on each chip. points: how many it has.
        cells: every pair of chips, by ``best_for`` and then ``run_on``.
        money: by which prices or power costs are, a line for each chip; empty where they are times.
    """

    space: str
    goal: str
    unit: str
    reference: str
    best: dict[str, Cost]
    reference_costs: dict[str, Cost | Failure]
    feasible: dict[str, int]
    points: int
    cells: list[LockInCell]
    money: list[str]

    def cell(self, best_for: str, run_on: str) -> LockInCell:
        """One of them."""
        return next(one for one in self.cells if (one.best_for, one.run_on) == (best_for, run_on))

    @property
    def notes(self) -> list[str]:
        """By which prices costs are, and why times deserve less trust, each once with its chips."""
        return self.money + chip_notes(
            [*self.best.values(), *(one.cost for one in self.cells if isinstance(one.cost, Cost))]
        )


def lock_in_of(priced: Mapping[str, Priced], reference: MoEShape, progress: ChipProgress | None = None) -> LockIn:
    """The matrix of a space that is priced on some chips.

    Raises:
        UserError: no shape of the space may be timed on a chip.
    """
    best: dict[str, Cost] = {}
    feasible: dict[str, int] = {}
    points = 0
    for chip, one in priced.items():
        prices = one.prices(progress)
        best[chip], feasible[chip], points = best_of(one, prices), int((prices == prices).sum()), len(prices)
    cells = []
    for best_for, run_on in ((a, b) for a in priced for b in priced):
        shape = best[best_for].shape
        cost = priced[run_on].obstacle(shape) or priced[run_on].cost(shape)
        over = None if isinstance(cost, Failure) else cost.over(best[run_on])
        cells.append(LockInCell(best_for, run_on, cost, over))
    first = next(iter(priced.values()))
    return LockIn(
        space=first.space.name,
        goal=str(first.goal),
        unit=first.goal.unit,
        reference=reference.name or reference.label(),
        best=best,
        reference_costs={chip: one.cost(reference) for chip, one in priced.items()},
        feasible=feasible,
        points=points,
        cells=cells,
        money=cost_notes([one.chip for one in priced.values()], [first.goal.metric.needs]),
    )


def chip_notes(costs: list[Cost]) -> list[str]:
    """What the cost model notes on costs, each note once with the chips that it is of."""
    chips: dict[str, dict[str, None]] = {}
    for cost in costs:
        for note in cost.notes:
            chips.setdefault(note, {})[cost.chip] = None
    return [f"{', '.join(names)}: {note}" for note, names in chips.items()]
