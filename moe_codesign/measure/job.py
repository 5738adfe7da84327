"""What a measurement is asked, and what it answers. Plain data: it crosses a process boundary."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moe_codesign.timing import Timing
from moe_codesign.workload import RankWork
from moe_kernels.tile import Value

Tiles = tuple[dict[str, Value], dict[str, Value]]


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
    candidates: tuple[Tiles, ...]
    dtype: str = "bfloat16"
    seed: int = 0
    min_samples: int = 5
    max_samples: int = 50
    budget_s: float = 0.5

    @classmethod
    def of(cls, work: RankWork, candidates: tuple[Tiles, ...], *, seed: int = 0, budget_s: float = 0.5) -> "LayerJob":
        return cls(
            rows=tuple(int(r) for r in work.rows),
            tokens=work.tokens,
            hidden_size=work.hidden_size,
            intermediate_size=work.intermediate_size,
            gated=work.gated,
            candidates=candidates,
            dtype=work.dtype,
            seed=seed,
            budget_s=budget_s,
        )


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A verified time of one candidate. ``error`` is the worst row error over all checks, before and after."""

    tiles: Tiles
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


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A candidate without a time, and why."""

    tiles: Tiles
    reason: str


Outcome = Measurement | Failure


@dataclass(frozen=True)
class Inputs:
    """Float32 inputs of one layer (cast by the device), and routings to check it under.

    ``routings``: (rows per expert int32 [E], token of each pair int32 [P]); the first is the job's own, then
    one expert that gets all rows, then rows on every other expert only.
    """

    x: npt.NDArray[np.float32]
    gate: npt.NDArray[np.float32]
    up: npt.NDArray[np.float32] | None
    down: npt.NDArray[np.float32]
    pair_weight: npt.NDArray[np.float32]
    routings: tuple[tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]], ...]


def make_inputs(job: LayerJob) -> Inputs:
    """Random inputs of unit scale: a hidden unit's variance does not grow with H or I."""
    rng = np.random.default_rng(job.seed)
    experts, hidden, width = len(job.rows), job.hidden_size, job.intermediate_size

    def draw(*shape: int, scale: float = 1.0) -> npt.NDArray[np.float32]:
        # Uniform, of variance 1: three times faster to draw than normal, and weights are most of the set-up.
        return (rng.random(shape, dtype=np.float32) - np.float32(0.5)) * np.float32(scale * 12**0.5)

    pairs = sum(job.rows)
    own = np.array(job.rows, dtype=np.int32)
    everything = np.zeros(experts, dtype=np.int32)
    everything[experts // 2] = pairs
    sparse = np.zeros(experts, dtype=np.int32)
    sparse[::2] = pairs // len(sparse[::2])
    sparse[0] += pairs - sparse.sum()
    token = (np.arange(pairs) % job.tokens).astype(np.int32)
    return Inputs(
        x=draw(job.tokens, hidden),
        gate=draw(experts, hidden, width, scale=hidden**-0.5),
        up=draw(experts, hidden, width, scale=hidden**-0.5) if job.gated else None,
        down=draw(experts, width, hidden, scale=width**-0.5),
        pair_weight=rng.random(pairs, dtype=np.float32) + np.float32(0.1),
        routings=tuple((sizes, token) for sizes in (own, everything, sparse)),
    )
