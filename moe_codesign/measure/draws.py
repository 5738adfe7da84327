"""What a layer is run on: activations, router weights and routings, drawn anew for each check and each timed round."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import numpy.typing as npt

from moe_codesign.measure.job import LayerJob

Ints = npt.NDArray[np.int32]
LEAST_ROUTINGS = 4
"""Of those before timing, the first ones, which every candidate is checked under: its own, one expert, some even ones,
some odd ones."""


@dataclass(frozen=True)
class Draw:
    """One set of operands beside the weights.

    Args:
        rows: pairs of each expert; as many together as the job has.
        tokens: that the pairs are drawn from.
        seed: of the activations, the router weights and which token each pair is of.
    """

    rows: tuple[int, ...]
    tokens: int
    seed: tuple[int, ...]

    @property
    def pairs(self) -> int:
        """(Token, expert) pairs."""
        return sum(self.rows)

    def generator(self) -> np.random.Generator:
        """Random numbers for the activations and the router weights: the same ones each time."""
        return np.random.default_rng((1, *self.seed))

    def pair_token(self) -> Ints:
        """The token of each pair, sorted by expert: int32 [P].

        No expert has a token twice, unless it has more pairs than there are tokens.
        """
        order = np.random.default_rng((2, *self.seed)).permutation(self.tokens)
        return np.resize(order, self.pairs).astype(np.int32)

    def group_sizes(self) -> Ints:
        """Pairs of each expert: int32 [E]."""
        return np.array(self.rows, dtype=np.int32)

    def pair_expert(self) -> Ints:
        """The expert of each pair: int32 [P]."""
        return np.repeat(np.arange(len(self.rows)), self.rows).astype(np.int32)


def before_timing(job: LayerJob) -> list[Draw]:
    """The job's own routing, all pairs on one expert, and the even and the odd experts alone, so that each has a pair.

    A batch that has fewer pairs than there are experts takes several routings to reach them all, the even and the odd
    ones in turns.
    """
    if not sum(job.rows):  # an expert-parallel rank that no token chose
        return [Draw(job.rows, job.tokens, (job.seed, 0))]
    rng = np.random.default_rng((3, job.seed))
    routings = [job.rows, _on(job, [int(rng.integers(len(job.rows)))])]
    halves = []
    for first in (0, 1):
        half = rng.permutation(np.arange(first, len(job.rows), 2)).tolist()
        size = max(1, min(len(half), sum(job.rows)))
        halves.append([_on(job, half[start : start + size]) for start in range(0, len(half), size)])
    routings += [rows for both in zip_longest(*halves) for rows in both if rows is not None]
    return [Draw(rows, job.tokens, (job.seed, number)) for number, rows in enumerate(routings)]


def after_timing(job: LayerJob, secret: int) -> list[Draw]:
    """The job's own routing again, a skewed one, and all pairs on another expert; with numbers nobody can foresee."""
    rng = np.random.default_rng((4, secret))
    skewed = rng.multinomial(sum(job.rows), rng.dirichlet(np.full(len(job.rows), 0.3))).tolist()
    routings = [job.rows, tuple(skewed), _on(job, [int(rng.integers(len(job.rows)))])]
    return [Draw(rows, job.tokens, (secret, number)) for number, rows in enumerate(routings)]


def for_timing(job: LayerJob, secret: int) -> Iterator[Draw]:
    """The job's own routing, with operands that no kernel has seen: one set for each round."""
    number = 0
    while True:
        number += 1
        yield Draw(job.rows, job.tokens, (secret, 0, number))


def _on(job: LayerJob, experts: list[int]) -> tuple[int, ...]:
    """All pairs on these experts, as evenly as it goes."""
    rows = np.zeros(len(job.rows), dtype=int)
    whole, rest = divmod(sum(job.rows), len(experts)) if experts else (0, 0)
    rows[experts] = whole
    rows[experts[:rest]] += 1
    return tuple(rows.tolist())
