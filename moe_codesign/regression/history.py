"""How a suite's kernels went from run to run: one line for each kernel and chip."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from moe_codesign.regression.facts import Fact, Facts, Place
from moe_codesign.storage.regressions import RegressionRun

_METRICS = ("latency_us", "step_cycles", "cycles", "bundles", "instructions_per_matrix", "instructions")
"""Facts that a kernel's cost is read from: the first of these that it has."""


@dataclass(frozen=True)
class Line:
    """One kernel on one chip.

    Args:
        metric: the fact that its cost is read from.
        routings: of the problems that a modelled time is of, each once; None where a run did not name it.
        ratios: for each run, the cost over that of the run which had its tiles first (the geometric mean of the tiles);
            None where the kernel was not run.
    """

    kernel: str
    chip: str
    metric: str
    ratios: tuple[float | None, ...]
    routings: tuple[str | None, ...] = ()

    @property
    def read_from(self) -> str:
        """The metric, and by which routing it is: ``latency_us, uniform routing``."""
        named = [f"{routing} routing" if routing is not None else "unnamed routing" for routing in self.routings]
        return ", ".join([self.metric, *named])

    def sparkline(self) -> str:
        """Draw a bar for each run: the middle height is unchanged, the lowest half and the highest twice the cost."""
        bars = "▁▂▃▄▅▆▇█"
        return "".join("·" if r is None else bars[max(0, min(7, round(3.5 + 3.5 * math.log2(r))))] for r in self.ratios)


def lines(runs: Sequence[RegressionRun]) -> list[Line]:
    """Follow every kernel and chip through the runs of a suite, which are in order of time."""
    read = [{Place(*place): Facts.from_json(row) for place, row in run.facts.items()} for run in runs]
    kernels = dict.fromkeys((place.kernel, place.chip) for facts in read for place in facts)
    found = []
    for kernel, chip in kernels:
        of_runs = [{p.tile: f for p, f in facts.items() if (p.kernel, p.chip) == (kernel, chip)} for facts in read]
        metric = next((m for m in _METRICS if any(_costs(facts, m) for facts in of_runs)), None)
        if metric is not None:
            costs = [_costs(facts, metric) for facts in of_runs]
            facts = {fact: None for cost in costs for _, fact in cost if fact.problem is not None}
            found.append(Line(kernel, chip, metric, _ratios(costs), tuple(dict.fromkeys(f.routing for f in facts))))
    return found


def _costs(of_tiles: Mapping[str, Facts], metric: str) -> dict[tuple[str, Fact], float]:
    """What each tile costs, by tile and fact: a modelled time is a fact for each problem."""
    return {
        (tile, fact): float(value)
        for tile, facts in of_tiles.items()
        for fact, value in facts.numbers.items()
        if fact.name == metric and value > 0
    }


def _ratios(costs: Sequence[dict[tuple[str, Fact], float]]) -> tuple[float | None, ...]:
    """Compare each run with what its tiles cost when first seen; a later tile starts at the level of its time."""
    found: list[float | None] = []
    first: dict[tuple[str, Fact], float] = {}
    level = 1.0
    for cost in costs:
        known = [key for key in cost if key in first]
        if known:
            level = math.exp(sum(math.log(cost[key] / first[key]) for key in known) / len(known))
        for key in cost.keys() - first.keys():
            first[key] = cost[key] / level
        found.append(level if cost else None)
    return tuple(found)
