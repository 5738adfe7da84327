"""The frontier of each chip, one row a pair, with what a reader compares."""

import math
from dataclasses import dataclass
from typing import Any

from moe_codesign.chips import Chip, load_chip
from moe_codesign.cost.bound import layer_bound
from moe_codesign.domain.frontier import frontier
from moe_codesign.domain.pair import Pair
from moe_codesign.domain.rank import rank_work
from moe_codesign.storage.studies import TrialRow
from moe_codesign.study.runner import SearchResult
from moe_codesign.study.space import Space


@dataclass(frozen=True)
class ReportRow:
    """A pair on (or off) its chip's frontier. ``gain``: the reference's time with its default tile over ours."""

    pair: Pair
    on_frontier: bool
    share_of_peak: float
    gain: float | None
    metrics: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            **self.pair.to_dict(),
            "on_frontier": self.on_frontier,
            "share_of_peak": self.share_of_peak,
            "gain_over_reference": self.gain,
            "metrics": self.metrics,
        }


def report_rows(result: SearchResult) -> list[ReportRow]:
    """Every feasible pair, chip by chip, best first by the first objective. Chips are never ranked together."""
    rows: list[ReportRow] = []
    base = {(p.chip, p.workload.name): p for p in result.reference}
    for name in result.space.chips:
        chip = load_chip(name)
        trials = [t for t in result.trials if t.chip == chip.name and t.pairs]
        objectives = {id(t): _values(t, chip, result.space) for t in trials}
        best = {id(t) for t in frontier(trials, lambda t: objectives[id(t)], result.space.maximised())}  # noqa: B023
        sign = -1.0 if result.space.maximised()[0] else 1.0
        for trial in sorted(trials, key=lambda t: sign * objectives[id(t)][0]):
            rows += [_row(pair, chip, id(trial) in best, base) for pair in trial.pairs]
    return rows


def _values(trial: TrialRow, chip: Chip, space: Space) -> list[float]:
    metrics = {pair.workload.name: pair.metrics(chip) for pair in trial.pairs}
    values = []
    for objective in space.objectives:
        workload, _, metric = objective.rpartition(".")
        values.append(metrics[workload or trial.pairs[0].workload.name].get(metric, math.nan))
    return values


def _row(pair: Pair, chip: Chip, on_frontier: bool, base: dict[tuple[str, str], Pair]) -> ReportRow:
    bound = layer_bound(chip, rank_work(pair.shape, pair.workload))
    reference = base.get((pair.chip, pair.workload.name))
    # A gain across grades would compare a model with a stopwatch.
    comparable = reference is not None and reference.timing.grade == pair.timing.grade
    return ReportRow(
        pair=pair,
        on_frontier=on_frontier,
        share_of_peak=bound.compute_us / pair.timing.latency_us,
        gain=reference.timing.latency_us / pair.timing.latency_us if reference is not None and comparable else None,
        metrics=pair.metrics(chip),
    )
