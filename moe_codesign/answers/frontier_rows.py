"""The frontier of each chip, one row for each pair, with what a reader compares."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from moe_codesign.answers.importances import importances_on
from moe_codesign.answers.money import own_notes
from moe_codesign.answers.recommendation import recommendations
from moe_codesign.chips import Chip
from moe_codesign.chips.schema import Price
from moe_codesign.cost.bound import layer_bound
from moe_codesign.cost.ratio import ratio
from moe_codesign.domain.frontier import frontier
from moe_codesign.domain.metrics import metrics_of
from moe_codesign.domain.pair import Pair
from moe_codesign.domain.rank import rank_work
from moe_codesign.domain.trial import Mode, Trial

if TYPE_CHECKING:  # what asks about a study has it; what prints an audit loads no optimiser and no database
    from moe_codesign.study.runner import SearchResult

_SAME_QUALITY = 1.01
"""Up to this ratio two qualities by one law are level. Chosen."""
_NUMBER = re.compile(r"(?<![\w.])\d[\d.,]*")


@dataclass(frozen=True)
class ReportRow:
    """One pair of a trial.

    Args:
        pair: itself.
        mode, trial: which search of its chip proposed it, and in which of its trials.
        on_frontier: no other trial on the chip is better in every objective.
        share_of_peak: FLOP/s over the chip's peak for the type.
        gain: the reference's time with its default tile over this pair's; None where the two cannot be compared.
        metrics: every metric that the chip can answer, by name.
        price: what a cost among them is by; None where nobody gives one.
    """

    pair: Pair
    mode: Mode
    trial: int
    on_frontier: bool
    share_of_peak: float
    gain: float | None
    metrics: dict[str, float]
    price: Price | None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            **self.pair.to_dict(),
            "mode": self.mode,
            "trial": self.trial,
            "on_frontier": self.on_frontier,
            "share_of_peak": self.share_of_peak,
            "gain_over_reference": self.gain,
            "metrics": self.metrics,
            "price": None if self.price is None else self.price._asdict(),
        }


@dataclass(frozen=True)
class PairNote:
    """What the cost model notes on pairs of one chip, said once for all that it is noted on.

    Args:
        chip: its name.
        texts: the notes, which differ in their numbers alone; the first is the best pair's.
        pairs: how many pairs of the chip have one.
        of: how many pairs the chip has.
        on_reference: the reference model's time on the chip has one too, from which gains are counted.
    """

    chip: str
    texts: tuple[str, ...]
    pairs: int
    of: int
    on_reference: bool

    def is_on(self, pair: Pair) -> bool:
        """Whether the pair has this note."""
        return pair.chip == self.chip and any(text in self.texts for text in pair.notes)

    def __str__(self) -> str:
        whose = [f"{self.pairs} of {self.of} pairs"] if self.pairs else []
        whose += ["the reference"] if self.on_reference else []
        alike = f" (and {len(self.texts) - 1} more that differ in their numbers)" if len(self.texts) > 1 else ""
        return f"{self.chip}, {' and '.join(whose)}: {self.texts[0]}{alike}"


def report_rows(result: "SearchResult") -> list[ReportRow]:
    """Every pair, chip by chip, best first by the first objective. Chips are never ranked together."""
    rows: list[ReportRow] = []
    for chip in result.space.chips:
        trials = [trial for trial in result.trials if trial.chip == chip.name and trial.pairs]
        maximised = result.space.maximised()
        valued = [(trial, _values(trial, chip, result)) for trial in trials]
        best = {(trial.mode, trial.number) for trial, _ in frontier(valued, lambda item: item[1], maximised)}
        sign = -1.0 if maximised[0] else 1.0
        reference = {pair.workload.name: pair for pair in result.reference.get(chip.name, ())}
        for trial, _ in sorted(valued, key=lambda item: sign * item[1][0]):
            on_frontier = (trial.mode, trial.number) in best
            rows += [_row(pair, trial, chip, on_frontier, reference.get(pair.workload.name)) for pair in trial.pairs]
    return rows


def thinned(
    rows: Sequence[ReportRow], most: int, first: tuple[Mode, int] | None = None
) -> tuple[list[tuple[Mode, int]], int]:
    """Trials of one chip's frontier that differ by more than what is known of their ratios, in their order.

    A trial is left out where it lies within error of one that is kept: the times of all its workloads are ties, and the
    laws that apply to both do not agree on which has the better quality, or put them within 1 %.

    Args:
        rows: of the chip, as :func:`report_rows` gives them.
        most: trials to keep.
        first: a trial to begin with, if it is on the frontier.

    Returns:
        The trials that are kept, and how many of the others lie within error of one of them.
    """
    trials: dict[tuple[Mode, int], list[Pair]] = {}
    for row in rows:
        if row.on_frontier:
            trials.setdefault((row.mode, row.trial), []).append(row.pair)
    kept: list[tuple[Mode, int]] = [first] if first in trials and first is not None else []
    alike = 0
    for key, pairs in trials.items():
        if key in kept:
            continue
        if any(_within_error(pairs, trials[other]) for other in kept):
            alike += 1
        elif len(kept) < most:
            kept.append(key)
    return kept, alike


def _within_error(some: Sequence[Pair], others: Sequence[Pair]) -> bool:
    own, theirs = some[0], others[0]
    laws = own.quality_by_law.keys() & theirs.quality_by_law.keys()
    better = [own.quality_ratio / theirs.quality_ratio]
    better += [own.quality_by_law[law] / theirs.quality_by_law[law] for law in laws]
    agreed = min(better) > 1 / _SAME_QUALITY and max(better) > _SAME_QUALITY
    agreed |= max(better) < _SAME_QUALITY and min(better) < 1 / _SAME_QUALITY
    return not agreed and all(ratio(a, b).is_tie for a, b in zip(some, others, strict=True))


def pair_notes(rows: Sequence[ReportRow], reference: Mapping[str, Sequence[Pair]]) -> list[PairNote]:
    """Every note on pairs, chip by chip, those of the best pairs first.

    Args:
        rows: of :func:`report_rows`.
        reference: the reference model's pairs by chip.
    """
    notes = []
    for chip in dict.fromkeys([*(row.pair.chip for row in rows), *reference]):
        own = [row.pair for row in rows if row.pair.chip == chip]
        texts: dict[str, dict[str, None]] = {}
        for pair in (*own, *reference.get(chip, ())):
            for text in pair.notes:
                texts.setdefault(_NUMBER.sub("0", text), {})[text] = None
        for alike in texts.values():
            pairs, on_reference = (
                [pair for pair in some if any(text in alike for text in pair.notes)]
                for some in (own, reference.get(chip, ()))
            )
            notes.append(PairNote(chip, tuple(alike), len(pairs), len(own), bool(on_reference)))
    return notes


def json_rows(result: "SearchResult") -> dict[str, Any]:
    """What ``--json`` gives of a study's pairs.

    ``recommendation`` is each chip's, ``importances`` by chip and objective the share of each field, ``pairs`` are the
    frontier, ``all_pairs`` every pair, ``notes`` those on the run and those on pairs, each once.
    """
    rows = report_rows(result)
    return {
        "recommendation": {
            chip: None if one is None else one.to_dict() for chip, one in recommendations(result).items()
        },
        "notes": [*result.notes, *own_notes(result.space.chips), *map(str, pair_notes(rows, result.reference))],
        "importances": {chip.name: importances_on(result, chip) for chip in result.space.chips},
        "pairs": [row.to_dict() for row in rows if row.on_frontier],
        "all_pairs": [row.to_dict() for row in rows],
    }


def _values(trial: Trial, chip: Chip, result: "SearchResult") -> list[float]:
    return [objective.value(trial.pairs, chip) for objective in result.space.objectives]


def _row(pair: Pair, trial: Trial, chip: Chip, on_frontier: bool, reference: Pair | None) -> ReportRow:
    bound = layer_bound(chip, rank_work(pair.shape, pair.workload))
    # A gain across grades would compare a model with a stopwatch.
    comparable = reference is not None and reference.timing.grade == pair.timing.grade
    return ReportRow(
        pair=pair,
        mode=trial.mode,
        trial=trial.number,
        on_frontier=on_frontier,
        share_of_peak=bound.compute_us / pair.timing.latency_us,
        gain=reference.timing.latency_us / pair.timing.latency_us if reference is not None and comparable else None,
        metrics=metrics_of(pair, chip),
        price=chip.price,
    )
