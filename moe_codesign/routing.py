"""How many rows each expert gets: the part of a workload that the mean load hides."""

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


@dataclass(frozen=True)
class Routing:
    """Which experts the tokens choose.

    ``balanced`` as even as can be; ``uniform`` k distinct experts at random; ``zipf`` k distinct
    experts with popularity rank**-alpha; ``power_law`` aiconfigurator's construction, the one that its
    measured data carry; ``histogram`` proportional to counts measured in a real model.
    """

    kind: str = "balanced"
    alpha: float = 0.0
    histogram: tuple[float, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Routing":
        """Read ``kind``, ``kind:alpha`` or ``histogram:FILE.json``.

        Raises:
            UserError: unknown kind, alpha missing or not positive, histogram unreadable.
        """
        kind, _, argument = str(text).partition(":")
        if kind not in _KINDS:
            raise UserError("routing", value=text, mend=_MEND)
        if kind in ("zipf", "power_law"):
            try:
                alpha = float(argument)
            except ValueError:
                raise UserError("routing", value=text, mend=_MEND) from None
            if not 0 < alpha < 100:
                raise UserError("routing alpha", value=alpha, mend="give a number above 0")
            return cls(kind, alpha)
        if kind == "histogram":
            try:
                values = tuple(float(v) for v in json.loads(Path(argument).read_text()))
            except (OSError, ValueError, TypeError) as error:
                raise UserError(f"routing histogram {argument!r} cannot be read ({error})", mend=_MEND) from None
            if not values or min(values) < 0 or sum(values) <= 0 or not np.isfinite(values).all():
                raise UserError("routing histogram", value=argument, mend="give finite counts of 0 or more, not all 0")
            return cls(kind, histogram=values)
        if argument:
            raise UserError("routing", value=text, mend=f"{kind} takes no argument")
        return cls(kind)

    def __str__(self) -> str:
        if self.kind in ("zipf", "power_law"):
            return f"{self.kind}:{self.alpha:g}"
        return self.kind

    def counts(self, num_tokens: int, num_experts: int, top_k: int, seed: int = 0) -> Counts:
        """Rows per routed expert.

        Returns:
            int64 [num_experts], summing to ``num_tokens * top_k``, each at most ``num_tokens``.

        Raises:
            UserError: the histogram is not ``num_experts`` long.
        """
        return _counts(self, num_tokens, num_experts, top_k, seed)


@functools.lru_cache(maxsize=4096)
def _counts(routing: Routing, num_tokens: int, num_experts: int, top_k: int, seed: int) -> Counts:
    counts: Counts
    total = num_tokens * top_k
    rng = np.random.default_rng(seed)
    if routing.kind == "balanced":
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
        counts = _settle(_power_law(routing.alpha, low, high, num_experts, rng), total, num_tokens)
    else:
        if len(routing.histogram) != num_experts:
            raise UserError(
                f"routing histogram has {len(routing.histogram)} entries",
                mend=f"give one for each of num_experts = {num_experts}",
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
