"""What a measurement is asked, and what it answers. Plain data: it crosses a process boundary."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from moe_codesign.domain.rank import RankWork
from moe_codesign.domain.tile_pair import TilePair
from moe_codesign.domain.timing import Timing
from moe_codesign.measure.samples import typical


@dataclass(frozen=True, kw_only=True)
class LayerJob:
    """One problem and the tile pairs to race on it, interleaved so that drift hits all alike.

    ``rows`` are rows per expert. There are at least ``min_samples`` timed rounds, more where so many do not agree, at
    most ``max_samples``, within about ``budget_s``.
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
        low, high = (float(v) for v in np.percentile(self.samples_us, [5, 95]))
        middle = typical(self.samples_us)
        return Timing(
            grade="measured",
            latency_us=middle,
            low_us=min(low, middle),
            high_us=max(high, middle),
            bound_us=bound_us,
            limiter=bound_kind,
            samples_us=self.samples_us,
        )
