"""How many token rows each expert gets under a routing: the part of a workload that the mean load hides.

A seed asks for that very draw of a random routing (:func:`token_counts`), as a measurement runs it. Without one
(:func:`busiest_counts`) no single draw decides: uniform routing has its distribution
(:mod:`moe_codesign.domain.uniform_loads`), others the mean of :data:`DRAWS` draws.
"""

import functools
from typing import assert_never

import numpy as np
import numpy.typing as npt

from moe_codesign.arrays import F64
from moe_codesign.domain.routing import Balanced, Histogram, PowerLaw, Routing, Uniform, Zipf
from moe_codesign.domain.uniform_loads import typical_counts
from moe_codesign.errors import UserError, quoted

Counts = npt.NDArray[np.int64]
DRAWS = 5
"""Draws that stand for a random routing other than uniform, as aiconfigurator's measured latencies average them."""
_CHUNK = 4_000_000
"""Numbers that are held at a time while tokens choose their experts."""
_MOST_ROWS, _MOST_EXPERTS = 1_000_000_000, 1_000_000
_MOST_CHOICES = 2_000_000_000
"""Tokens times experts of a routing in which each token chooses by itself: about a minute's work."""


def token_counts(
    routing: Routing, num_tokens: int, num_experts: int, top_k: int, seed: int = 0, ranks: int = 1
) -> Counts:
    """Token rows of each routed expert.

    Args:
        routing: how the tokens choose.
        num_tokens: tokens of the batch.
        num_experts: routed experts of the layer.
        top_k: distinct experts that each token chooses.
        seed: seed of the random draw; balanced routings and histograms draw nothing.
        ranks: ranks that the experts are dealt to. A power law spreads its rounding over them, as the measurements do.

    Returns:
        int64 [num_experts], read-only. The counts sum to ``num_tokens * top_k`` and none exceeds ``num_tokens``.

    Raises:
        UserError: more tokens or experts than can be counted, the histogram does not have ``num_experts`` entries, too
            few experts are kept, or the experts cannot be divided evenly over the ranks.
    """
    _check_sizes(num_tokens, num_experts)
    each_token = isinstance(routing, Uniform | Zipf) or (
        isinstance(routing, Balanced | PowerLaw) and routing.is_limited
    )
    if each_token and num_tokens * num_experts > _MOST_CHOICES:
        raise UserError(
            f"{num_tokens:,} tokens that choose among {num_experts:,} experts one by one take too long",
            fix="give routing = balanced, or fewer tokens",
        )
    return _counts(routing, num_tokens, num_experts, top_k, seed, ranks if isinstance(routing, PowerLaw) else 1)


def busiest_counts(
    routing: Routing,
    num_tokens: int,
    num_experts: int,
    top_k: int,
    *,
    seed: int | None = None,
    ranks: int = 1,
    zero_experts: int = 0,
) -> Counts:
    """Token rows of each expert of the rank that has most of them.

    Args:
        routing, num_tokens, num_experts, top_k, ranks: as for :func:`token_counts`.
        seed: of the random draw. Without one the counts are those of a typical draw: of a uniform routing the quantiles
            of its distribution, of Zipf's and power laws the mean over :data:`DRAWS` draws of the least of the rank's
            counts, of the second, and so on.
        zero_experts: choices beside the experts that lead to no expert and leave no row.

    Returns:
        int64 [num_experts / ranks], read-only; none exceeds ``num_tokens``.

    Raises:
        UserError: as :func:`token_counts`.
    """
    if seed is None and isinstance(routing, Uniform):
        _check_sizes(num_tokens, num_experts + zero_experts)
        return typical_counts(num_tokens, num_experts, top_k, ranks, zero_experts)
    if seed is not None:
        draws = range(seed, seed + 1)
    else:
        draws = range(DRAWS if is_drawn(routing) else 1)
    drawn = [_busiest(routing, num_tokens, num_experts, top_k, draw, ranks, zero_experts) for draw in draws]
    if len(drawn) == 1:
        return drawn[0]
    mean = np.mean([np.sort(counts) for counts in drawn], axis=0)
    counts = _settle(mean, round(float(mean.sum())), num_tokens)
    counts.flags.writeable = False
    return counts


def _busiest(
    routing: Routing, num_tokens: int, num_experts: int, top_k: int, seed: int, ranks: int, zero_experts: int
) -> Counts:
    """The same of one draw."""
    # A power law deals what it rounds to ranks, which zero experts are of no share.
    dealt = ranks if not zero_experts else 1
    counts = token_counts(routing, num_tokens, num_experts + zero_experts, top_k, seed, dealt)[:num_experts]
    by_rank = counts.reshape(ranks, -1)
    return np.asarray(by_rank[int(by_rank.sum(axis=1).argmax())])


def _check_sizes(num_tokens: int, num_experts: int) -> None:
    if num_tokens > _MOST_ROWS or num_experts > _MOST_EXPERTS:
        raise UserError(
            f"{quoted(num_tokens)} tokens over {quoted(num_experts)} experts are more than can be counted",
            fix=f"give at most {_MOST_ROWS:,} and {_MOST_EXPERTS:,}",
        )


def is_drawn(routing: Routing) -> bool:
    """Whether the counts depend on the seed."""
    return isinstance(routing, Uniform | Zipf | PowerLaw)


@functools.lru_cache(maxsize=4096)
def _counts(routing: Routing, num_tokens: int, num_experts: int, top_k: int, seed: int, ranks: int) -> Counts:
    if num_experts % ranks:
        raise UserError(f"{num_experts} experts on ranks", value=ranks, fix="give as many experts to every rank")
    total = num_tokens * top_k
    rng = np.random.default_rng(seed)
    match routing:
        case Balanced():
            if routing.is_limited:
                counts = _limited_counts(routing, _in_step(num_tokens, num_experts, top_k), num_experts)
            else:
                counts = _even(total, num_experts)
        case PowerLaw():
            counts = _power_law_counts(routing.alpha, num_tokens, num_experts, top_k, rng, ranks)
            if routing.is_limited:
                counts = _limited_counts(routing, laid_out(counts, num_tokens), num_experts)
        case Uniform():
            counts = _draw(np.zeros(num_experts), num_tokens, top_k, rng)
        case Zipf():
            popularity = -routing.alpha * np.log(np.arange(1, num_experts + 1))
            counts = _draw(rng.permutation(popularity), num_tokens, top_k, rng)
        case Histogram():
            counts = _settle(np.asarray(routing.of_experts(num_experts), dtype=float), total, num_tokens)
        case _:
            assert_never(routing)
    counts.flags.writeable = False
    return counts


def _even(total: int, num_experts: int) -> Counts:
    counts = np.full(num_experts, total // num_experts, dtype=np.int64)
    extra = total % num_experts
    # The odd rows go to experts an even distance apart, so that every expert-parallel rank has its share.
    counts[(np.arange(extra) * num_experts) // max(extra, 1)] += 1
    return counts


def _power_law_counts(
    alpha: float, num_tokens: int, num_experts: int, top_k: int, rng: np.random.Generator, ranks: int
) -> Counts:
    """Counts as aiconfigurator draws them; what rounding leaves over is dealt to the ranks in turn."""
    total = num_tokens * top_k
    low, high = (0.01, 2.0) if total <= num_experts else (1.0, max(0.8 * num_tokens, 1.0 + 1e-9))
    drawn = _power_law(alpha, low, high, num_experts, rng)
    counts: Counts = np.rint(drawn / drawn.sum() * total).astype(np.int64)
    over = int(np.maximum(counts - num_tokens, 0).sum())
    counts = np.minimum(counts, num_tokens)
    by_rank = counts.reshape(ranks, -1)
    deal(by_rank, over, num_tokens)
    missing = total - int(counts.sum())
    if missing > 0:
        deal(by_rank, missing, num_tokens)
    else:
        # Lowering the fullest is raising the least of the negated counts.
        by_rank *= -1
        deal(by_rank, -missing, 0)
        by_rank *= -1
    return counts


def _limited_counts(routing: Balanced | PowerLaw, chosen: Counts, num_experts: int) -> Counts:
    """Counts after each token is limited to the kept groups; ``chosen`` int [tokens, k] are its experts before."""
    tokens, top_k = chosen.shape
    assert routing.limit is not None
    groups, kept = routing.limit.groups, routing.limit.kept
    if num_experts % groups or top_k > kept * (num_experts // groups):
        raise UserError(
            f"routing {routing} of top-{top_k} of {num_experts} experts",
            fix="give groups that divide the experts, and keep enough of them",
        )
    counts = np.zeros(num_experts, dtype=np.int64)
    step = max(1, _CHUNK // num_experts)
    for start in range(0, tokens, step):
        counts += _limited(chosen[start : start + step], num_experts, groups, kept)
    return counts


def _draw(log_weight: F64, num_tokens: int, top_k: int, rng: np.random.Generator) -> Counts:
    """Each token takes ``top_k`` distinct experts: the largest of log weight plus Gumbel noise."""
    num_experts = len(log_weight)
    counts = np.zeros(num_experts, dtype=np.int64)
    if top_k == num_experts:
        return counts + num_tokens
    rows = max(1, _CHUNK // num_experts)
    for start in range(0, num_tokens, rows):
        noise = rng.gumbel(size=(min(rows, num_tokens - start), num_experts)) + log_weight
        chosen = np.argpartition(noise, num_experts - top_k, axis=1)[:, num_experts - top_k :]
        counts += np.bincount(chosen.ravel(), minlength=num_experts)
    return counts


def _power_law(alpha: float, low: float, high: float, size: int, rng: np.random.Generator) -> F64:
    """Inverse-transform draws with density x**-alpha on [low, high]."""
    u = rng.random(size)
    if abs(alpha - 1.0) < 1e-9:
        return np.asarray(low * (high / low) ** u)
    a, b = low ** (1 - alpha), high ** (1 - alpha)
    return np.asarray((a + u * (b - a)) ** (1 / (1 - alpha)))


def deal(by_rank: Counts, units: int, most: int) -> None:
    """Add units one by one to the least loaded expert of each rank in turn; none gets above ``most``, and units for
    which no expert has room are dropped."""
    share = np.zeros(len(by_rank), dtype=np.int64)
    room = (most - by_rank).sum(axis=1)
    while units and len(open_ranks := np.flatnonzero(share < room)):
        rounds = min(units // len(open_ranks), int((room - share)[open_ranks].min()))
        if rounds == 0:
            open_ranks, rounds = open_ranks[:units], 1
        share[open_ranks] += rounds
        units -= rounds * len(open_ranks)
    for counts, own in zip(by_rank, share, strict=True):
        _raise_least(counts, int(own))


def _raise_least(counts: Counts, units: int) -> None:
    """Add units one by one to the least of the counts, the first among equals."""
    ascending = np.sort(counts)
    below = np.cumsum(ascending)
    filled = np.arange(1, len(counts) + 1)
    # Raising the n least to the n-th takes n times it less their sum. The most that can be raised so share a level.
    n = int(np.searchsorted(filled * ascending - below, units, side="right"))
    level, rest = divmod(units + int(below[n - 1]), n)
    lowest = np.flatnonzero(counts <= level)
    counts[lowest] = level
    counts[lowest[:rest]] += 1


def _in_step(num_tokens: int, num_experts: int, top_k: int) -> Counts:
    """[T, k] experts, aiconfigurator's balanced choices: token t's j-th is t + j ceil(E / k) mod E, few tokens spread.

    Where k ceil(E / k) is far above E a token's last choices repeat its first.
    """
    stride = -(-num_experts // top_k)
    token = np.arange(num_tokens)
    first = token if num_tokens >= stride else token * stride // num_tokens
    return np.asarray((first[:, None] + stride * np.arange(top_k)) % num_experts)


def laid_out(counts: Counts, num_tokens: int) -> Counts:
    """[T, k] distinct experts that give these counts: experts from the fullest, each as often as it counts, dealt to
    tokens 0 to T - 1 again and again. So does aiconfigurator."""
    order = np.argsort(-counts, kind="stable")
    return np.asarray(np.repeat(order, counts[order]).reshape(-1, num_tokens).T)


def tokens_with(counts: Counts, own: slice, num_tokens: int) -> int:
    """Tokens with one of the ``own`` experts, where they are given experts as aiconfigurator lays its power law out."""
    order = np.argsort(-counts, kind="stable")
    begins = np.empty(len(counts), dtype=np.int64)
    begins[order] = np.cumsum(counts[order]) - counts[order]
    first = begins[own] % num_tokens
    ends = first + counts[own]
    beyond = ends[ends > num_tokens] - num_tokens
    # +1 where an expert's tokens begin, -1 after they end; those that run past the last token go on at the first.
    edges = np.zeros(num_tokens + 1, dtype=np.int64)
    np.add.at(edges, first, 1)
    np.add.at(edges, np.minimum(ends, num_tokens), -1)
    edges[0] += len(beyond)
    np.add.at(edges, beyond, -1)
    return int((np.cumsum(edges[:-1]) > 0).sum())


def _limited(chosen: Counts, num_experts: int, groups: int, kept: int) -> Counts:
    """Counts after limiting each token to its best groups, where a router knows only chosen and not.

    A group's score is that of its two best experts. Among equal groups and experts the first are taken, so that a token
    whose choices lie in more groups than are kept fills up from the first experts of the first group: of
    aiconfigurator's balanced logits for DeepSeek-V3, all tokens choose experts 0 to 3.
    """
    tokens, top_k = chosen.shape
    is_chosen = np.zeros((tokens, num_experts), dtype=bool)
    is_chosen[np.arange(tokens)[:, None], chosen] = True
    score = np.minimum(is_chosen.reshape(tokens, groups, -1).sum(axis=2), 2)
    best = np.argsort(-score, axis=1, kind="stable")[:, :kept]
    is_kept = np.zeros((tokens, groups), dtype=bool)
    is_kept[np.arange(tokens)[:, None], best] = True
    can = np.repeat(is_kept, num_experts // groups, axis=1)
    stays = is_chosen & can
    others = can & ~is_chosen
    fill = others & (np.cumsum(others, axis=1) <= top_k - stays.sum(axis=1, keepdims=True))
    return np.asarray((stays | fill).sum(axis=0))


def _settle(weight: F64, total: int, most: int) -> Counts:
    """Whole counts in proportion to ``weight`` that sum to ``total``, none above ``most``."""
    counts: Counts = np.minimum(np.rint(weight / weight.sum() * total), most).astype(np.int64)
    missing = total - int(counts.sum())
    order = np.argsort(-weight, kind="stable")
    while missing != 0:
        step = 1 if missing > 0 else -1
        room = counts[order] < most if step > 0 else counts[order] > 0
        take = order[room][: abs(missing)]
        counts[take] += step
        missing -= step * len(take)
    return counts
