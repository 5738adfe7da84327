"""How near 90 % the coverage of a few shapes comes by chance, when the interval is right."""

from collections.abc import Sequence

import numpy as np
from sets import Set

from moe_codesign.calibrating.fit import conformal_interval, within_range
from moe_codesign.cost.calibration import TOKEN_BUCKETS

DRAWS = 200
LOW, HIGH = 87.0, 93.0
LEAST_ROWS = 100
"""Of an interval's calibration, and of what it is judged on."""


def by_chance(sets: Sequence[Set]) -> str:
    """The test split played again on fitted shapes, each by trees that have not seen it.

    As many shapes as a set's test split has are drawn, the interval is made of the other fitted shapes, and holds some
    share of the drawn ones': a share that differs from draw to draw, since the rows of a shape err together.
    """
    drawn = [found for found in (_coverages(one) for one in sets) if len(found)]
    chance = float(np.mean([np.mean((found >= LOW) & (found <= HIGH)) for found in drawn]))
    judged = [one.calibration.file.held_out for one in sets]
    hit = sum(one is not None and LOW <= one.interval_coverage <= HIGH for one in judged)
    return (
        f"{hit} of the {len(sets)} sets' intervals hold {LOW:.0f} to {HIGH:.0f} % of their test split. That is what "
        f"chance allows: where the split is played again with fitted shapes ({len(drawn)} sets that have enough, "
        f"{DRAWS} draws), a set's share is {np.mean([found.mean() for found in drawn]):.1f} % in the mean and scatters "
        f"by {np.mean([found.std() for found in drawn]):.1f} points, because the rows of a shape err together and a "
        f"split has two to four shapes; {100 * chance:.0f} % of the draws lie within, {chance * len(sets):.0f} sets of "
        f"{len(sets)}."
    )


def _coverages(one: Set) -> np.ndarray:
    """Percent of the drawn shapes' rows that the interval of the others holds, by draw."""
    data, keys = one.fitted, np.unique(one.fitted.shape_key)
    off, tokens, within = np.log(data.latency_us / one.fitted_us), data.columns.num_tokens, within_range(data)
    rng, found = np.random.default_rng(0), []
    for _ in range(DRAWS):
        drawn = np.isin(data.shape_key, rng.choice(keys, min(one.test.shapes, len(keys) - 1), replace=False))
        judged, others = within & drawn, within & ~drawn
        if min(judged.sum(), others.sum()) < LEAST_ROWS:
            continue
        width = np.array(conformal_interval(off[others], tokens[others]))
        found.append(100 * np.mean(np.abs(off[judged]) <= width[np.searchsorted(TOKEN_BUCKETS, tokens[judged])]))
    return np.array(found)
