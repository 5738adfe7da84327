"""How many rows each expert gets: the part of a workload that the mean load hides."""

import dataclasses
import functools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from moe_codesign.errors import UserError

Counts = npt.NDArray[np.int64]
_KINDS = ("balanced", "uniform", "zipf", "power_law", "histogram")
_MEND = "use balanced, uniform, zipf:ALPHA, power_law:ALPHA or histogram:FILE.json (a list of one number per expert)"
_LIMITED = ("balanced", "power_law")


@dataclass(frozen=True)
class Routing:
    """Which experts the tokens choose.

    ``balanced`` as even as can be; ``uniform`` k distinct experts at random; ``zipf`` k distinct
    experts with popularity rank**-alpha; ``power_law`` aiconfigurator's construction, the one that its
    measured data carry; ``histogram`` proportional to counts measured in a real model.

    ``groups``, ``kept``: of ``balanced`` and ``power_law``, experts only of the ``kept`` best of ``groups`` equal
    groups can be chosen (0: all can), as DeepSeek-V3 limits them to 4 of 8. It is what measured data carry, not what a
    router does: its logits know only chosen and not, so that of equals the first are taken, and counts are far from
    even (of ``balanced/8/4`` with 256 experts and top-8 all tokens choose experts 0 to 3).
    """

    kind: str = "balanced"
    alpha: float = 0.0
    histogram: tuple[float, ...] = ()
    groups: int = 0
    kept: int = 0

    def __post_init__(self) -> None:
        if self.groups or self.kept:
            if self.kind not in _LIMITED:
                raise UserError("routing", value=self.kind, fix="limit balanced or power_law to groups, no other")
            if not 0 < self.kept <= self.groups:
                raise UserError("routing groups", value=str(self), fix="keep 1 group or more, no more than there are")

    @classmethod
    def parse(cls, text: str) -> "Routing":
        """Read ``kind``, ``kind:alpha`` or ``histogram:FILE.json``; ``/groups/kept`` may follow the first two.

        Raises:
            UserError: unknown kind, alpha missing or not positive, groups that cannot be, histogram unreadable.
        """
        kind, _, argument = str(text).partition(":")
        if kind.partition("/")[0] in _LIMITED and "/" in str(text):
            plain, *limits = str(text).split("/")
            if len(limits) != 2 or not all(limit.isdecimal() and len(limit) < 7 for limit in limits):
                raise UserError("routing", value=text, fix="give groups and how many are kept, as in balanced/8/4")
            groups, kept = map(int, limits)
            if groups == 0:
                raise UserError("routing groups", value=text, fix="give 1 group or more")
            return dataclasses.replace(cls.parse(plain), groups=groups, kept=kept)
        if kind not in _KINDS:
            raise UserError("routing", value=text, fix=_MEND)
        if kind in ("zipf", "power_law"):
            try:
                alpha = float(argument)
            except ValueError:
                raise UserError("routing", value=text, fix=_MEND) from None
            if not 0 < alpha < 100:
                raise UserError("routing alpha", value=alpha, fix="give a number above 0")
            return cls(kind, alpha)
        if kind == "histogram":
            try:
                values = tuple(float(v) for v in json.loads(Path(argument).read_text()))
            except (OSError, ValueError, TypeError) as error:
                raise UserError(f"routing histogram {argument!r} cannot be read ({error})", fix=_MEND) from None
            if not values or min(values) < 0 or sum(values) <= 0 or not np.isfinite(values).all():
                raise UserError("routing histogram", value=argument, fix="give finite counts of 0 or more, not all 0")
            return cls(kind, histogram=values)
        if argument:
            raise UserError("routing", value=text, fix=f"{kind} takes no argument")
        return cls(kind)

    def __str__(self) -> str:
        limits = f"/{self.groups}/{self.kept}" if self.groups else ""
        if self.kind in ("zipf", "power_law"):
            return f"{self.kind}:{self.alpha:g}{limits}"
        return self.kind + limits

    def counts(self, num_tokens: int, num_experts: int, top_k: int, seed: int = 0, ranks: int = 1) -> Counts:
        """Rows per routed expert.

        Args:
            num_tokens: T. num_experts: E. top_k: distinct experts of a token.
            seed: of what is drawn.
            ranks: that the experts are dealt to; ``power_law`` evens its rounding out over them.

        Returns:
            int64 [num_experts], summing to ``num_tokens * top_k``, each at most ``num_tokens``.

        Raises:
            UserError: the histogram is not ``num_experts`` long, the experts kept are too few, or the experts are not
                the same number on every rank.
        """
        return _counts(self, num_tokens, num_experts, top_k, seed, ranks if self.kind == "power_law" else 1)


@functools.lru_cache(maxsize=4096)
def _counts(routing: Routing, num_tokens: int, num_experts: int, top_k: int, seed: int, ranks: int) -> Counts:
    counts: Counts
    total = num_tokens * top_k
    rng = np.random.default_rng(seed)
    if num_experts % ranks:
        raise UserError(f"{num_experts} experts on ranks", value=ranks, fix="give as many experts to every rank")
    if routing.groups > routing.kept:
        if num_experts % routing.groups or top_k > routing.kept * (num_experts // routing.groups):
            raise UserError(
                f"routing {routing} of top-{top_k} of {num_experts} experts",
                fix="give groups that divide the experts, and keep enough of them",
            )
        open_to_all = dataclasses.replace(routing, groups=0, kept=0)
        if routing.kind == "balanced":
            chosen = _in_step(num_tokens, num_experts, top_k)
        else:
            chosen = _laid_out(open_to_all.counts(num_tokens, num_experts, top_k, seed, ranks), num_tokens)
        counts = np.zeros(num_experts, dtype=np.int64)
        tokens = max(1, 4_000_000 // num_experts)
        for start in range(0, num_tokens, tokens):
            counts += _limited(chosen[start : start + tokens], num_experts, routing.groups, routing.kept)
    elif routing.kind == "balanced":
        counts = np.full(num_experts, total // num_experts, dtype=np.int64)
        extra = total % num_experts
        # The odd rows go to experts an even distance apart, so that every expert-parallel rank has its share.
        counts[(np.arange(extra) * num_experts) // max(extra, 1)] += 1
    elif routing.kind == "uniform":
        counts = _draw(np.zeros(num_experts), num_tokens, top_k, rng)
    elif routing.kind == "zipf":
        popularity = -routing.alpha * np.log(np.arange(1, num_experts + 1))
        counts = _draw(rng.permutation(popularity), num_tokens, top_k, rng)
    elif routing.kind == "power_law":
        low, high = (0.01, 2.0) if total <= num_experts else (1.0, max(0.8 * num_tokens, 1.0 + 1e-9))
        drawn = _power_law(routing.alpha, low, high, num_experts, rng)
        counts = np.rint(drawn / drawn.sum() * total).astype(np.int64)
        over = int(np.maximum(counts - num_tokens, 0).sum())
        counts = np.minimum(counts, num_tokens)
        by_rank = counts.reshape(ranks, -1)
        _deal(by_rank, over, num_tokens)
        missing = total - int(counts.sum())
        if missing > 0:
            _deal(by_rank, missing, num_tokens)
        else:
            # From the fullest downwards is to the least of the negated upwards.
            by_rank *= -1
            _deal(by_rank, -missing, 0)
            by_rank *= -1
    else:
        if len(routing.histogram) != num_experts:
            raise UserError(
                f"routing histogram has {len(routing.histogram)} entries",
                fix=f"give one for each of num_experts = {num_experts}",
            )
        counts = _settle(np.asarray(routing.histogram), total, num_tokens)
    counts.flags.writeable = False
    return counts


def _draw(log_weight: npt.NDArray[np.float64], num_tokens: int, top_k: int, rng: np.random.Generator) -> Counts:
    """Each token takes ``top_k`` distinct experts: the largest of log weight plus Gumbel noise."""
    num_experts = len(log_weight)
    counts = np.zeros(num_experts, dtype=np.int64)
    if top_k == num_experts:
        return counts + num_tokens
    rows = max(1, 4_000_000 // num_experts)
    for start in range(0, num_tokens, rows):
        noise = rng.gumbel(size=(min(rows, num_tokens - start), num_experts)) + log_weight
        chosen = np.argpartition(noise, num_experts - top_k, axis=1)[:, num_experts - top_k :]
        counts += np.bincount(chosen.ravel(), minlength=num_experts)
    return counts


def _power_law(alpha: float, low: float, high: float, size: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Inverse-transform draws with density x**-alpha on [low, high]."""
    u = rng.random(size)
    if abs(alpha - 1.0) < 1e-9:
        return np.asarray(low * (high / low) ** u)
    a, b = low ** (1 - alpha), high ** (1 - alpha)
    return np.asarray((a + u * (b - a)) ** (1 / (1 - alpha)))


def _deal(by_rank: Counts, units: int, most: int) -> None:
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


def _laid_out(counts: Counts, num_tokens: int) -> Counts:
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

    A group's score is that of its two best experts. Of equal groups and experts the first are taken, so that a token
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


def _settle(weight: npt.NDArray[np.float64], total: int, most: int) -> Counts:
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
