"""A law of how far two times of one model err apart, fitted to pairs of estimates beside their measured times.

Two rows of one set (chip, stack, data type) make a pair if they ran under the same kind of routing and split and are of
different shapes. What the law gives is the share of independent errors that is left in their ratio; see
:class:`moe_codesign.calibrations.ratios.RatioLaw`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moe_codesign.arrays import F64, Mask
from moe_codesign.calibrations.ratios import RatioLaw
from moe_codesign.errors import UserError

COVERAGE = 0.9
_AT_MOST = 40
"""Rows of one workload whose pairs are taken, drawn by chance where there are more: all pairs would be billions."""
_NEAR, _FAR = np.geomspace(0.1, 1.5, 40), np.geomspace(0.1, 2.5, 50)
"""Values that are tried. Hardly two measured shapes are nearer than a fifth, so that ``near`` is kept from 0."""
_SCALES = (0.25, 0.5, 1.0, 2.0)
_BINS = 24


@dataclass(frozen=True)
class Estimates:
    """Estimates of problems that were in no fit, beside their measured times.

    Args:
        name: of the set.
        log_error: log of estimate over measured, float64 [rows].
        log_width: half-width of the estimate's own interval, as a logarithm, float64 [rows].
        log_sizes: logarithms of the sizes that a distance counts, float64 [rows, 5]; see
            :data:`moe_codesign.calibrations.ratios.SIZES`.
        shape_key: the shape of each row.
        workload: a number for each kind of row that is compared, int64 [rows].
    """

    name: str
    log_error: F64
    log_width: F64
    log_sizes: F64
    shape_key: npt.NDArray[np.str_]
    workload: npt.NDArray[np.int64]

    def take(self, rows: Mask) -> "Estimates":
        """These rows."""
        return Estimates(
            self.name,
            self.log_error[rows],
            self.log_width[rows],
            self.log_sizes[rows],
            self.shape_key[rows],
            self.workload[rows],
        )


@dataclass(frozen=True)
class ErrorPairs:
    """Pairs of estimates.

    Args:
        distance: of the two problems, float64 [pairs].
        share: how far the two log errors lie apart, over the width of two independent ones, float64 [pairs].
        independent: that width: the root of the sum of the squares of both half-widths, float64 [pairs].
    """

    distance: F64
    share: F64
    independent: F64

    def __len__(self) -> int:
        return len(self.share)

    @classmethod
    def joined(cls, some: Sequence["ErrorPairs"]) -> "ErrorPairs":
        """One after the other."""
        columns = ("distance", "share", "independent")
        return cls(*(np.concatenate([getattr(one, name) for one in some]) for name in columns))

    def held(self, law: RatioLaw) -> float:
        """Share of the pairs whose measured ratio the law's interval holds."""
        return float(np.mean(self.share <= law.factors(self.distance)))


def error_pairs(estimates: Estimates, seed: int = 0) -> ErrorPairs:
    """Pairs of rows of one workload and of different shapes; of many rows as many as 40 drawn by chance make."""
    rng = np.random.default_rng(seed)
    order = np.argsort(estimates.workload, kind="stable")
    first: list[npt.NDArray[np.int64]] = [np.zeros(0, dtype=np.int64)]
    second = first.copy()
    for here in np.split(order, np.flatnonzero(np.diff(estimates.workload[order])) + 1):
        some = rng.choice(here, _AT_MOST, replace=False) if len(here) > _AT_MOST else here
        a, b = (some[index] for index in np.triu_indices(len(some), 1))
        other = estimates.shape_key[a] != estimates.shape_key[b]
        first.append(a[other])
        second.append(b[other])
    a, b = np.concatenate(first), np.concatenate(second)
    independent = np.hypot(estimates.log_width[a], estimates.log_width[b])
    return ErrorPairs(
        distance=np.linalg.norm(estimates.log_sizes[a] - estimates.log_sizes[b], axis=1),
        share=np.abs(estimates.log_error[a] - estimates.log_error[b]) / independent,
        independent=independent,
    )


def law_of_sets(sets: Sequence[Estimates], source: str, tiles: F64 | None = None) -> RatioLaw:
    """:func:`fit_law` of the pairs of some sets."""
    return fit_law([error_pairs(one) for one in sets], source, tiles)


def fit_law(sets: Sequence[ErrorPairs], source: str, tiles: F64 | None = None) -> RatioLaw:
    """The law that holds 90 % of the pairs at every distance, each set of pairs weighing the same.

    It is the quantile regression (least pinball loss) among laws that rise with distance.

    Args:
        sets: pairs of each set.
        source: what is said of them in the file.
        tiles: shares, as in :class:`ErrorPairs`, of pairs of tiles of one problem; None takes ``far``.

    Raises:
        UserError: there is no pair.
    """
    sets = [one for one in sets if len(one)]
    if not sets:
        raise UserError("no two measured shapes are of one workload", fix="give measured times of more shapes")
    pairs = ErrorPairs.joined(sets)
    weight = np.concatenate([np.full(len(one), 1.0 / len(one)) for one in sets])
    best = (np.inf, 0.0, 0.0, 0.0)
    near_far = np.stack([one.ravel() for one in np.meshgrid(_NEAR, _FAR, indexing="ij")])
    rising = near_far[:, near_far[0] <= near_far[1]]
    for scale in _SCALES:
        loss = _losses(-np.expm1(-pairs.distance / scale), pairs.share, weight, *rising)
        place = int(loss.argmin())
        best = min(best, (float(loss[place]), float(rising[0, place]), float(rising[1, place]), scale))
    _, near, far, scale = best
    least = far if tiles is None or not len(tiles) else float(np.quantile(tiles, COVERAGE))
    return RatioLaw(near=near, far=far, scale=scale, tiles=least, pairs=len(pairs), source=source)


def _losses(depth: F64, share: F64, weight: F64, near: F64, far: F64) -> F64:
    """Pinball loss of each near and far; depth says how far from one to the other a pair is, in narrow bands."""
    bands = np.minimum((depth * _BINS).astype(int), _BINS - 1)
    total = np.zeros(len(near))
    for band in np.unique(bands):
        inside = bands == band
        order = np.argsort(share[inside])
        values, weights = share[inside][order], weight[inside][order]
        weights_to = np.concatenate([[0.0], np.cumsum(weights)])
        sums_to = np.concatenate([[0.0], np.cumsum(weights * values)])
        factor = near + (far - near) * float(np.average(depth[inside], weights=weight[inside]))
        place = np.searchsorted(values, factor)
        over = sums_to[-1] - sums_to[place] - factor * (weights_to[-1] - weights_to[place])
        under = factor * weights_to[place] - sums_to[place]
        total += COVERAGE * over + (1 - COVERAGE) * under
    return total
