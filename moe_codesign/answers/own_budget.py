"""How far a published shape is from the best that its own budget of parameters allows on a chip."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from moe_codesign.answers.priced import ChipProgress, Cost, Priced, best_of, price_on
from moe_codesign.compiler.tile_table import Tables
from moe_codesign.cost.ratio import Ratio
from moe_codesign.domain.failure import Failure
from moe_codesign.domain.frontier import non_dominated, slack
from moe_codesign.errors import UserError
from moe_codesign.models import find_model
from moe_codesign.study.space import Space


@dataclass(frozen=True)
class OwnBudget:
    """A reference model beside the shapes of its space on one chip.

    Args:
        chip: its name. model: of the reference.
        feasible: how many shapes may be timed there.
        frontier: how many of them no other one beats under every workload.
        distance: by which factor, less one, the reference would have to be faster under every workload to be on the
            frontier; 0 on it.
        reference: its cost, by workload.
        best: the shape that is fastest under that workload alone, by workload.
        gains: the reference over that shape, by workload.
        at_own_width: the fastest shape of the reference's moe_intermediate_size over the fastest of all, by workload;
            NaN where no shape of that width may be timed.
    """

    chip: str
    model: str
    feasible: int
    frontier: int
    distance: float
    reference: dict[str, Cost]
    best: dict[str, Cost]
    gains: dict[str, Ratio]
    at_own_width: dict[str, float]


def own_budget_of(space: Space, tables: Tables, progress: ChipProgress | None = None) -> list[OwnBudget]:
    """How far a space's reference is from the frontier of its workloads' times, on each of its chips.

    The space's constraints are the budget. The reference, which need not be a point of the space, is timed with its
    best tiles like every other shape.

    Raises:
        UserError: no shape of the space, or not the reference, may be timed on a chip.
    """
    names = list(dict.fromkeys(w.name for chip in space.chips for w in space.workloads_on(chip)))
    priced = {name: price_on(space, tables, f"{name}.latency_us") for name in names}
    return [_on(chip.name, {name: priced[name][chip.name] for name in names}, progress) for chip in space.chips]


def _on(chip: str, priced: Mapping[str, Priced], progress: ChipProgress | None) -> OwnBudget:
    first = next(iter(priced.values()))
    model = find_model(first.space.reference)
    columns = {name: one.prices(progress) for name, one in priced.items()}
    best = {name: best_of(one, columns[name]) for name, one in priced.items()}
    reference: dict[str, Cost] = {}
    for name, one in priced.items():
        cost = one.cost(model)
        if isinstance(cost, Failure):
            raise UserError(f"{model.name} has no time on {chip} ({cost})", fix="change the split")
        reference[name] = cost
    values = np.stack(list(columns.values()), axis=1)
    timed = np.flatnonzero(~np.isnan(values).any(axis=1))
    values = values[timed]
    maximise = [False] * len(priced)
    front = non_dominated(values, maximise)
    own = np.array([[cost.value for cost in reference.values()]])
    distance = slack(own, values[front], maximise)[0]
    widths = np.array([first.shape(int(number)).moe_intermediate_size for number in timed])
    same = values[widths == model.moe_intermediate_size]
    return OwnBudget(
        chip=chip,
        model=model.name,
        feasible=len(timed),
        frontier=len(front),
        distance=float(distance),
        reference=reference,
        best=best,
        gains={name: reference[name].over(best[name]) for name in priced},
        at_own_width={
            name: float(same[:, place].min() / values[:, place].min()) if len(same) else float("nan")
            for place, name in enumerate(priced)
        },
    )
