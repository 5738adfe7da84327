"""What a measurement is asked, and what it answers. Plain data: it crosses a process boundary."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from moe_codesign.domain.rank import RankWork
from moe_codesign.domain.tile_pair import TilePair
from moe_codesign.domain.timing import Timing


@dataclass(frozen=True, kw_only=True)
class LayerJob:
    """One problem and the tile pairs to race on it, interleaved so that drift hits all alike.

    ``rows`` are rows per expert; ``samples`` timed rounds at least ``min_samples``, at most ``max_samples``,
    within about ``budget_s``.
    """

    rows: tuple[int, ...]
    tokens: int
    hidden_size: int
    intermediate_size: int
    gated: bool
    candidates: tuple[TilePair, ...]
    dtype: str = "bfloat16"
    seed: int = 0
    min_samples: int = 5
    max_samples: int = 50
    budget_s: float = 0.5

    @classmethod
    def of(cls, work: RankWork, candidates: Iterable[TilePair], *, seed: int = 0, budget_s: float = 0.5) -> "LayerJob":
        return cls(
            rows=tuple(int(r) for r in work.rows),
            tokens=work.tokens,
            hidden_size=work.hidden_size,
            intermediate_size=work.intermediate_size,
            gated=work.gated,
            candidates=tuple(candidates),
            dtype=work.dtype,
            seed=seed,
            budget_s=budget_s,
        )


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A verified time of one candidate. ``error`` is the worst row error over all checks, before and after."""

    tiles: TilePair
    samples_us: tuple[float, ...]
    error: float
    checks: int
    device: str
    software: str

    def timing(self, bound_us: float, bound_kind: str) -> Timing:
        samples = np.array(self.samples_us)
        low, median, high = (float(v) for v in np.percentile(samples, [5, 50, 95]))
        return Timing(
            grade="measured",
            latency_us=median,
            low_us=low,
            high_us=high,
            bound_us=bound_us,
            limiter=bound_kind,
            samples_us=self.samples_us,
        )


class TokenOrder(NamedTuple):
    """(Token, expert) pairs, sorted by expert.

    Args:
        group_sizes: int32 [E], pairs of each expert.
        token: int32 [P], the token of each pair.
    """

    group_sizes: npt.NDArray[np.int32]
    token: npt.NDArray[np.int32]


def token_orders(job: LayerJob) -> tuple[TokenOrder, ...]:
    """What a layer is checked under: the job's own rows, all rows on one expert, and rows on every other expert only.

    A kernel is timed under the first.
    """
    pairs = sum(job.rows)
    own = np.array(job.rows, dtype=np.int32)
    everything = np.zeros(len(own), dtype=np.int32)
    everything[len(own) // 2] = pairs
    sparse = np.zeros(len(own), dtype=np.int32)
    sparse[::2] = pairs // len(sparse[::2])
    sparse[0] += pairs - sparse.sum()
    token = (np.arange(pairs) % job.tokens).astype(np.int32)
    return tuple(TokenOrder(sizes, token) for sizes in (own, everything, sparse))
