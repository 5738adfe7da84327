"""What the busiest rank has to do in the mean when tokens choose their experts uniformly: no draw, no luck.

Every token chooses k distinct of N experts, all equally likely. An expert's rows are then binomial, ``Bin(T, k / N)``,
and so is what a tile's height makes of them. Two quantities are the largest of several sums that add up to ``T k``: the
rows of the busiest rank and those of an expert. Both follow from one model of the choices: independent weights
``C(t, c)`` of each expert's count c, given the sum. With t chosen so that the variance of the counts is the router's,
this is exact for one token, and for k = 1.

Few choices (:data:`_FEW`) are summed over that model term by term. For more, the sum hardly binds: the largest of R
ranks is distributed as the largest of R independent counts of the variance ``v R / (R - 1)``, v the variance of one
rank's rows, which is exact for normal counts; counts of a small mean are summed term by term, those of a large one are
normal with their skewness. tests/domain/test_uniform_loads.py holds every number against means of draws.
"""

import functools
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moe_codesign.arrays import F64, Mask

_FEW = 48
"""Choices of all tokens up to which they are summed term by term: under a millisecond, each kept for the next time."""
_SMALL_MEAN = 16.0
"""Mean of a count from which on it is taken as normal, with its skewness."""
_FINE = 0.55
"""Standard deviation over a tile's height from which on the rows of a last tile are any number, all equally likely."""
_PART = 2048
"""Problems that are summed term by term at a time."""
_SPREADS = 5.0
"""Standard deviations beyond which a count does not lie."""


@dataclass(frozen=True)
class UniformLoads:
    """Loads of the busiest rank in the mean, one row for each problem.

    Args:
        rows: token rows of the rank.
        active: experts of the rank that have rows.
        largest: rows of its fullest expert.
        row_tiles: tiles of rows, for each height that was asked for.
    """

    rows: F64
    active: F64
    largest: F64
    row_tiles: tuple[F64, ...]


def expected_loads(
    tokens: F64, experts: F64, top_k: F64, ranks: F64, zero_experts: F64 | None = None, *, heights: Sequence[int]
) -> UniformLoads:
    """Loads of the busiest rank, in the mean over all draws of a uniform routing.

    Args:
        tokens: tokens of the batch, over all ranks.
        experts: routed experts, a multiple of ``ranks``.
        top_k: distinct choices of a token, among experts and zero experts.
        ranks: ranks that the experts are dealt to.
        zero_experts: choices that lead to no expert; default none.
        heights: heights of row tiles.
    """
    zero = np.zeros(len(tokens)) if zero_experts is None else zero_experts
    sizes = [tokens, experts, top_k, ranks, zero]
    few = _is_few(tokens, experts, top_k, zero)
    found = np.empty((3 + len(heights), len(tokens)))
    if few.any():
        distinct, place = np.unique(np.stack(sizes)[:, few], axis=1, return_inverse=True)
        each = [_of_few(tuple(map(int, key)), tuple(heights)) for key in distinct.T.tolist()]
        found[:, few] = np.array(each).T[:, place.ravel()]
    if not few.all():
        found[:, ~few] = _of_many(_many(*(size[~few] for size in sizes)), heights)
    return UniformLoads(found[0], found[1], found[2], tuple(found[3:]))


@functools.lru_cache(maxsize=1 << 14)
def typical_counts(tokens: int, experts: int, top_k: int, ranks: int, zero_experts: int = 0) -> npt.NDArray[np.int64]:
    """Rows of each expert of the busiest rank in a typical draw: as unequal as counts of that distribution are.

    Arguments are as for :func:`expected_loads`.

    Returns:
        int64 [experts / ranks], ascending and read-only: the (i + 1/2) / L quantiles of an expert's count, settled to
        sum to the rank's rows, to the nearest whole number. None exceeds ``tokens``.
    """
    local = experts // ranks
    sizes = [np.array([float(size)]) for size in (tokens, experts, top_k, ranks, zero_experts)]
    if _is_few(sizes[0], sizes[1], sizes[2], sizes[4])[0]:
        few = _few(tokens, experts, top_k, ranks, zero_experts)
        rows, counts = few.rows, _quantiles(few.count, local)
    else:
        many = _many(*sizes)
        rows, counts = float(many.rows[0]), many.expert.quantiles(local)
    counts = np.clip(counts, 0, tokens)
    _settle(counts, round(rows), tokens)
    counts.flags.writeable = False
    return counts


def _settle(counts: npt.NDArray[np.int64], total: int, most: int) -> None:
    """Change counts by one until they have that sum, at even distances, first those that have rows already."""
    missing = total - int(counts.sum())
    while missing:
        step = 1 if missing > 0 else -1
        can = np.flatnonzero((counts < most) if step > 0 else (counts > 0))
        middle = can[counts[can] > (0 if step > 0 else 1)]
        can = middle if len(middle) else can
        take = min(abs(missing), len(can))
        counts[can[(2 * np.arange(take) + 1) * len(can) // (2 * take)]] += step
        missing -= step * take
    counts.sort()


def _is_few(tokens: F64, experts: F64, top_k: F64, zero: F64) -> Mask:
    return np.asarray((tokens * top_k <= _FEW) & (top_k < experts + zero))


# Few choices: summed term by term.


@dataclass(frozen=True)
class _Few:
    """The busiest rank's rows and its fullest expert's in the mean, and the distribution of an expert's count there."""

    rows: float
    largest: float
    count: F64


@functools.lru_cache(maxsize=1 << 14)
def _few(tokens: int, experts: int, top_k: int, ranks: int, zero: int) -> _Few:
    every, choices, local = experts + zero, tokens * top_k, experts // ranks
    most = min(tokens, choices)
    weight = _weights(tokens, every, top_k)
    # Sums of counts are powers of the transform. All but a trace of the sum of all experts lies within its length.
    length = choices + 10 * math.isqrt(choices) + 30
    powers = np.exp(-2j * np.pi * np.outer(np.arange(length), np.arange(length)) / length)
    up_to = np.cumsum(weight[:, None] * powers[: most + 1], axis=0)
    whole = up_to[-1]
    of_rank = np.fft.ifft(whole**local).real
    elsewhere = whole**zero
    every_rank = np.fft.ifft(whole**experts * elsewhere).real[choices]
    if ranks == 1:
        share = of_rank * np.fft.ifft(elsewhere).real[(choices - np.arange(length)) % length] / every_rank
        share[choices + 1 :] = 0.0
    else:
        top = min(choices, tokens * min(top_k, local))
        below = np.cumsum(of_rank[: top + 1, None] * powers[: top + 1], axis=0)
        at_most = ((below**ranks * elsewhere) @ powers[-choices % length]).real / length / every_rank
        share = np.diff(at_most, prepend=0.0)
    rows = np.flatnonzero(share > 1e-9)
    share = share[rows] / share[rows].sum()
    none_above = np.fft.ifft(up_to**local, axis=1).real[:, rows] / of_rank[rows]
    others = np.fft.ifft(whole ** (local - 1)).real if local > 1 else np.eye(1, length)[0]
    counts = np.arange(most + 1)
    left = rows - counts[:, None]
    given = weight[:, None] * np.where(left >= 0, others[np.maximum(left, 0)], 0.0) / of_rank[rows]
    count = _binomial(tokens, top_k / every) if ranks == 1 else np.clip(given @ share, 0.0, None)
    return _Few(
        float(rows @ share), float((1 - np.clip(none_above, 0.0, 1.0)).sum(axis=0) @ share), count / count.sum()
    )


def _weights(tokens: int, every: int, top_k: int) -> F64:
    """Weights of an expert's count 0 to ``tokens``, of which the counts of all are drawn, given their sum."""
    choices = tokens * top_k
    mean, factor = choices / every, (every - top_k) / (every - 1)
    # As many of an expert's t chances are taken as there are choices: the variance is a hypergeometric one.
    chances = (choices - factor) / (1 - factor) / every if top_k > 1 else math.inf
    taken = np.arange(tokens)
    if top_k > 1:
        ratio = np.maximum(chances - taken, 0.0) / (taken + 1) * mean / (chances - mean)
    else:
        ratio = mean / (taken + 1)
    weight = np.concatenate([[1.0], np.cumprod(ratio)])
    return np.asarray(weight / weight.sum())


def _binomial(tokens: int, chance: float) -> F64:
    taken = np.arange(tokens)
    return np.concatenate([[1.0], np.cumprod((tokens - taken) / (taken + 1) * chance / (1 - chance))])


@functools.lru_cache(maxsize=1 << 14)
def _of_few(sizes: tuple[int, ...], heights: tuple[int, ...]) -> tuple[float, ...]:
    few = _few(*sizes)
    _, experts, _, ranks, _ = sizes
    local, counts = experts // ranks, np.arange(len(few.count))
    tiles = [local * float(-(-counts // height) @ few.count) for height in heights]
    return few.rows, local * (1 - float(few.count[0])), few.largest, *tiles


# Many choices: the largest of independent counts.


@dataclass(frozen=True)
class _Counts:
    """Columns of counts that are binomial or nearly so, none above ``most``."""

    mean: F64
    variance: F64
    most: F64

    @functools.cached_property
    def is_small(self) -> Mask:
        """Rows that are summed term by term."""
        return np.asarray((self.mean < _SMALL_MEAN) & (self.variance > 0))

    def take(self, rows: npt.NDArray[np.int64] | slice) -> "_Counts":
        return _Counts(self.mean[rows], self.variance[rows], self.most[rows])

    def tails(self) -> F64:
        """[rows, x]: the chance of more than x rows, of small counts."""
        chance = np.maximum(1 - self.variance / self.mean, 1e-9)
        size = self.mean / chance
        last = int((self.mean + 7 * np.sqrt(self.variance)).max()) + 6
        x = np.arange(last)
        ratio = np.maximum(size[:, None] - x, 0.0) / (x + 1)
        ratio *= (chance / (1 - chance))[:, None]
        first = np.exp(size * np.log1p(-chance))
        mass = np.cumprod(np.concatenate([first[:, None], ratio], axis=1), axis=1)[:, :-1]
        np.cumsum(mass, axis=1, out=mass)
        tails = np.subtract(1.0, mass, out=mass)
        np.clip(tails, 0.0, 1.0, out=tails)
        tails[x >= self.most[:, None]] = 0.0
        return np.asarray(tails)

    @functools.cached_property
    def skewness(self) -> F64:
        """Skewness of a binomial count with that mean and variance."""
        deviation = np.sqrt(np.maximum(self.variance, 1e-12))
        return np.asarray(np.clip((2 * self.variance / self.mean - 1) / deviation, -1.0, 1.0))

    def beyond(self, x: F64, number: F64 | None = None) -> F64:
        """The chance of more than x rows, of counts that are no small ones, or of the largest of so many whose sum is
        given."""
        deviation = np.sqrt(np.maximum(self.variance, 1e-12))
        z = (x + 0.5 - self.mean) / deviation
        if number is not None:
            # Without the spread of the sum, about the same mean.
            mean, variance = self.largest_of(number)
            middle = (mean - self.mean) / deviation
            z = middle + (z - middle) * np.sqrt(1 + self.variance / number / np.maximum(variance, 1e-12))
        density = np.exp(-z * z / 2) / math.sqrt(2 * math.pi)
        chance = np.clip(_above(z) + density * self.skewness / 6 * (z * z - 1), 0.0, 1.0)
        return np.asarray(chance if number is None else 1 - (1 - chance) ** number)

    def largest_of(self, number: F64) -> tuple[F64, F64]:
        """Mean and variance of the largest of so many independent counts, less what their sum varies by."""
        sizes, place = np.unique(number, return_inverse=True)
        first, second = np.array([_normal_maximum(int(size)) for size in sizes.tolist()]).T[:, place.ravel()]
        deviation = np.sqrt(self.variance)
        mean = self.mean + deviation * (first + self.skewness / 6 * (second - 1))
        variance = self.variance * (second - first * first)
        for rows in _parts(self.is_small):
            one = self.take(rows)
            tails = 1 - (1 - one.tails()) ** number[rows, None]
            mean[rows] = tails.sum(axis=1)
            variance[rows] = np.maximum(tails @ (2.0 * np.arange(tails.shape[1]) + 1) - mean[rows] ** 2, 0.0)
        return np.clip(mean, self.mean, self.most), np.maximum(variance - self.variance / number, 0.0)

    def active_and_tiles(self, heights: Sequence[int], number: F64 | None = None) -> F64:
        """[1 + heights, rows]: the chance that there is a row, and tiles of rows in the mean; of the largest of so many
        independent counts, if a number is given."""
        found = np.empty((1 + len(heights), len(self.mean)))
        small = self.is_small
        for rows in _parts(small):
            tails = self.take(rows).tails()
            if number is not None:
                tails = 1 - (1 - tails) ** number[rows, None]
            found[0, rows] = tails[:, 0]
            for place, height in enumerate(heights, 1):
                found[place, rows] = tails[:, ::height].sum(axis=1)
        large = np.flatnonzero(~small)
        if len(large):
            some, of = self.take(large), None if number is None else number[large]
            found[0, large] = some.beyond(np.zeros(len(large)), of)
            for place, height in enumerate(heights, 1):
                found[place, large] = some._tiles(height, of)
        return found

    def _tiles(self, height: int, number: F64 | None) -> F64:
        mean, variance = (self.mean, self.variance) if number is None else self.largest_of(number)
        deviation = np.sqrt(variance)
        found = np.asarray((mean + (height - 1) / 2) / height)
        coarse = np.flatnonzero(deviation < _FINE * height)
        if len(coarse):
            some, of = self.take(coarse), None if number is None else number[coarse]
            tiles = np.maximum(np.floor((mean[coarse] - _SPREADS * deviation[coarse]) / height), 0.0)
            first = tiles.copy()
            for more in range(2 + int(2 * _SPREADS * float(deviation[coarse].max()) / height)):
                tiles += some.beyond((first + more) * height, of)
            found[coarse] = tiles
        return found

    def quantiles(self, number: int) -> npt.NDArray[np.int64]:
        """The (i + 1/2) / number quantiles of the first row's count."""
        if self.is_small[0]:
            return _quantiles(-np.diff(self.take(slice(1)).tails()[0], prepend=1.0), number)
        z = _normal_quantiles(number)
        deviation = math.sqrt(max(float(self.variance[0]), 0.0))
        values = float(self.mean[0]) + deviation * (z + float(self.skewness[0]) / 6 * (z * z - 1))
        return np.rint(values).astype(np.int64)


@dataclass(frozen=True)
class _Many:
    """The busiest rank's rows in the mean; an expert's count there, by itself and among its L; and any rank's rows."""

    rows: F64
    local: F64
    expert: _Counts
    among: _Counts
    rank: _Counts
    ranks: F64


def _many(tokens: F64, experts: F64, top_k: F64, ranks: F64, zero: F64) -> _Many:
    every, local = experts + zero, experts / ranks
    chance = top_k / every
    factor = (every - top_k) / np.maximum(every - 1, 1)
    mean = tokens * top_k * local / every
    rows, spread = mean.copy(), np.zeros(len(mean))
    rank = _Counts(mean, mean * factor, tokens * np.minimum(top_k, local))
    several = np.flatnonzero((ranks > 1) & (factor > 0))
    if len(several):
        rows[several], spread[several] = rank.take(several).largest_of(ranks[several])
        rows = np.minimum(rows, tokens * top_k)
    count = rows / local
    share = np.minimum(count / tokens, 1.0)
    # Given the rank's rows, an expert's spread less than by itself; the rank's own spread is shared by its experts.
    free = factor * (1 - share) / np.maximum(1 - chance, 1e-12)
    within = count * np.where(ranks > 1, free * (1 - 1 / local), 1 - chance)
    expert = _Counts(count, within + spread / local**2, tokens)
    among = _Counts(count, np.where(local > 1, count * free, 0.0), tokens)
    return _Many(rows, local, expert, among, rank, ranks)


def _of_many(many: _Many, heights: Sequence[int]) -> F64:
    chances = many.local * many.expert.active_and_tiles(heights)
    # The only expert of the busiest rank has the largest of all counts.
    if len(alone := np.flatnonzero((many.local == 1) & (many.ranks > 1))):
        chances[:, alone] = many.rank.take(alone).active_and_tiles(heights, many.ranks[alone])
    active = np.minimum(chances[0], many.rows)
    tiles = np.clip(chances[1:], active, np.maximum(many.rows, active))
    largest = np.minimum(many.among.largest_of(many.local)[0], many.rows)
    return np.concatenate([np.stack([many.rows, active, largest]), tiles])


def _parts(mask: Mask) -> Iterator[npt.NDArray[np.int64]]:
    """Places where it holds, some thousand at a time: tables of tails stay in the cache."""
    places = np.flatnonzero(mask)
    for start in range(0, len(places), _PART):
        yield places[start : start + _PART]


def _quantiles(mass: F64, number: int) -> npt.NDArray[np.int64]:
    """The (i + 1/2) / number quantiles of counts 0, 1, .. of these chances."""
    at = (np.arange(number) + 0.5) / number
    return np.asarray(np.searchsorted(np.cumsum(mass), at * (1 - 1e-12)))


def _above(z: F64) -> F64:
    """The chance that a normal number lies above z (Abramowitz and Stegun 7.1.26, to 1e-7)."""
    x = np.abs(z) / math.sqrt(2)
    t = 1 / (1 + 0.3275911 * x)
    poly = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    upper = poly * np.exp(-x * x) / 2
    return np.where(z >= 0, upper, 1 - upper)


@functools.lru_cache(maxsize=4096)
def _normal_maximum(number: int) -> tuple[float, float]:
    """First and second moment of the largest of so many standard normal numbers."""
    x = np.linspace(-9.0, 9.0, 3601)
    below = (1 - _above(x)) ** number
    mass = np.diff(below)
    middle = (x[1:] + x[:-1]) / 2
    return float(middle @ mass), float(middle**2 @ mass)


@functools.lru_cache(maxsize=4096)
def _normal_quantiles(number: int) -> F64:
    normal = statistics.NormalDist()
    return np.array([normal.inv_cdf((i + 0.5) / number) for i in range(number)])
