"""How a suite's kernels went from run to run: one line a kernel and chip."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from moe_codesign.regression.readings import Place
from moe_codesign.regression.rules import Facts
from moe_codesign.storage.studies import RegressionRun

_METRICS = ("latency_us", "step_cycles", "cycles", "bundles", "instructions_per_matrix", "instructions")
"""What a kernel's cost is read from: the first of these that it has."""


@dataclass(frozen=True)
class Line:
    """``ratios``: each run's cost over that of the run which had its tiles first (geometric mean); None: not run."""

    kernel: str
    chip: str
    metric: str
    ratios: tuple[float | None, ...]

    def sparkline(self) -> str:
        """The ratios as bars, one a run: the middle height is unchanged, the ends are half and twice."""
        bars = "▁▂▃▄▅▆▇█"
        return "".join("·" if r is None else bars[max(0, min(7, round(3.5 + 3.5 * math.log2(r))))] for r in self.ratios)


def lines(runs: Sequence[RegressionRun]) -> list[Line]:
    """Every kernel and chip of these runs, oldest first."""
    kernels = dict.fromkeys((kernel, chip) for run in runs for kernel, chip, _ in run.facts)
    found = []
    for kernel, chip in kernels:
        of_runs = [{p: f for p, f in run.facts.items() if p[:2] == (kernel, chip)} for run in runs]
        metric = next((m for m in _METRICS if any(_costs(facts, m) for facts in of_runs)), None)
        if metric is not None:
            costs = [_costs(facts, metric) for facts in of_runs]
            found.append(Line(kernel, chip, metric, _ratios(costs)))
    return found


def _costs(facts: Mapping[Place, Facts], metric: str) -> dict[tuple[str, str], float]:
    """By (tile, fact): ``latency_us`` has a fact a problem."""
    return {
        (place[2], fact): float(value)
        for place, of_tile in facts.items()
        for fact, value in of_tile.items()
        if fact.partition(" ")[0] == metric and not isinstance(value, str) and value > 0
    }


def _ratios(costs: Sequence[dict[tuple[str, str], float]]) -> tuple[float | None, ...]:
    """Each run over what its tiles cost when they were first seen. A tile that comes later starts at the level then."""
    found: list[float | None] = []
    first: dict[tuple[str, str], float] = {}
    level = 1.0
    for cost in costs:
        known = [key for key in cost if key in first]
        if known:
            level = math.exp(sum(math.log(cost[key] / first[key]) for key in known) / len(known))
        for key in cost.keys() - first.keys():
            first[key] = cost[key] / level
        found.append(level if cost else None)
    return tuple(found)
