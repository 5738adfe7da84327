"""What the coverage of a test split of few shapes scatters by, where intervals are as right as they can be."""

from collections.abc import Sequence

import numpy as np
from sets import Set

from moe_codesign.cost.stacks.model import OUTSIDE_WIDENING, TOKEN_BUCKETS
from moe_codesign.fitting.intervals import conformal_interval
from moe_codesign.fitting.ranges import in_range, within_range

DRAWS = 200
SHARE = 0.2
"""Share of the shapes, as the test split's."""
LOW, HIGH = 87.0, 93.0
FEWEST_LEFT = 3
"""Shapes of a set from which an interval is made."""


def by_chance(sets: Sequence[Set]) -> str:
    """The test split played again on fitted shapes, the same ones of all sets at a time.

    Trees have not seen the shape that they correct; coefficients have, so that this says nothing of the mean. Each
    draw's interval and range are of the set's other shapes; all rows of the drawn ones are judged, as predictions are.
    """
    shapes = np.unique(np.concatenate([one.fitted.shape_key for one in sets]))
    rng = np.random.default_rng(0)
    found = np.full((DRAWS, len(sets)), np.nan)
    for draw in found:
        chosen = shapes[rng.random(len(shapes)) < SHARE]
        draw[:] = [_coverage(one, chosen) for one in sets]
    held = (found >= LOW) & (found <= HIGH)
    shares = [np.mean(one[~np.isnan(of)]) for one, of in zip(held, found, strict=True) if not np.isnan(of).all()]
    low, high = (round(len(sets) * float(np.quantile(shares, q))) for q in (0.05, 0.95))
    judged = [one.calibration.file.held_out for one in sets]
    hits = sum(one is not None and LOW <= one.interval_coverage <= HIGH for one in judged)
    mean, scatter = np.nanmean(found), np.nanmean(np.nanstd(found, axis=0))
    return (
        f"{hits} of the {len(sets)} sets' intervals hold {LOW:.0f} to {HIGH:.0f} % of their test split. Played again "
        f"{DRAWS} times with a fifth of the fitted shapes, each corrected by trees that have not seen it: a set's "
        f"share is {mean:.1f} % in the mean and scatters by {scatter:.1f} points, as the rows of a shape err "
        "together and few shapes are drawn of a set; "
        f"{len(sets) * np.mean(shares):.1f} sets of {len(sets)} lie within in the mean, {low} to {high} in nine draws "
        "of ten."
    )


def _coverage(one: Set, chosen: np.ndarray) -> float:
    """Percent of the chosen shapes' rows that the interval of the others holds; NaN if either side has too few."""
    data = one.fitted
    drawn = np.isin(data.shape_key, chosen)
    if not drawn.any() or len(np.unique(data.shape_key[~drawn])) < FEWEST_LEFT:
        return float("nan")
    others, judged = (data.take(np.flatnonzero(rows)) for rows in (~drawn, drawn))
    off = np.log(data.latency_us / one.fitted_us)
    within = within_range(others)
    widths = np.array(conformal_interval(off[~drawn][within], others.columns.num_tokens[within]))
    width = widths[np.searchsorted(TOKEN_BUCKETS, judged.columns.num_tokens)]
    # The lower end is never below the bound: nor is any row that is judged.
    return 100 * float(np.mean(np.abs(off[drawn]) <= width * np.where(in_range(judged, others), 1.0, OUTSIDE_WIDENING)))
