"""Which fields mattered on each chip of a study."""

from typing import TYPE_CHECKING

import numpy as np

from moe_codesign.chips import Chip

if TYPE_CHECKING:  # what prints an audit loads no optimiser and no database
    from moe_codesign.study.importances import Importances
    from moe_codesign.study.runner import SearchResult


def importances_on(result: "SearchResult", chip: Chip) -> "Importances":
    """By objective, the share of each field; of an enumerated space as they were found among all its shapes, else among
    the chip's trials of the mode with the most. Empty where there are too few.
    """
    from moe_codesign.study.importances import importances

    if (counts := result.enumerations.get(chip.name)) is not None:
        return counts.importances
    by_mode: dict[str, list[int]] = {}
    for place, trial in enumerate(result.trials):
        if trial.chip == chip.name and trial.mode != "polish" and trial.pairs:
            by_mode.setdefault(trial.mode, []).append(place)
    if not by_mode:
        return {}
    trials = [result.trials[place] for place in max(by_mode.values(), key=len)]
    values = np.array([[one.value(trial.pairs, chip) for one in result.space.objectives] for trial in trials])
    return importances(result.space, [trial.params for trial in trials], values)


def importance_notes(result: "SearchResult") -> list[str]:
    """A line for each chip on which it is known which fields mattered."""
    lines = []
    for chip in result.space.chips:
        if found := importances_on(result, chip):
            of_objectives = "; ".join(f"{name}: {_shares(shares)}" for name, shares in found.items())
            lines.append(f"{chip.name}: which fields mattered (PED-ANOVA, for the best tenth): {of_objectives}")
    return lines


def _shares(shares: dict[str, float]) -> str:
    return ", ".join(f"{name} {share:.0%}" for name, share in shares.items() if share >= 0.005)
