"""The ratio of two times with its own interval: of two near shapes it is known better than either time.

Two times of one model share a part of its errors, the more the nearer their problems are; see
:mod:`moe_codesign.calibrations.ratios`. Times of different chips, kernels, data types or grades share none that anybody
has counted, and are taken as independent. Two measurements are compared by their samples.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from moe_codesign.arrays import F64
from moe_codesign.calibrations.ratios import distance, law_of
from moe_codesign.domain.pair import Pair
from moe_codesign.domain.timing import Timing

_OF_90 = NormalDist().inv_cdf(0.95)
"""Half-width of a 90 % interval in standard deviations."""
_RESAMPLED = 1000
"""Times that the samples of two measurements are drawn again."""
_FEWEST_SAMPLES = 5
"""Samples of a measurement, below which its median's scatter is not known and its interval serves."""


@dataclass(frozen=True)
class Ratio:
    """One time over another.

    Args:
        value: time of the first over time of the second.
        low, high: its 90 % interval.
        chance: that the first is the faster, from 0 to 1.
    """

    value: float
    low: float
    high: float
    chance: float

    @property
    def is_tie(self) -> bool:
        """Whether neither can be called the faster: 1 lies inside of the interval."""
        return self.low <= 1.0 <= self.high

    @property
    def log_half(self) -> float:
        """Half-width of the interval, as a logarithm; the larger where its halves differ."""
        return max(math.log(self.high / self.value), math.log(self.value / self.low))

    @classmethod
    def around(cls, value: float, log_half: float) -> "Ratio":
        """A ratio whose logarithm is normally distributed, with this half-width of its 90 % interval."""
        chance = 0.5 if value == 1.0 else float(value < 1.0)
        if log_half > 0:
            chance = NormalDist().cdf(-math.log(value) / log_half * _OF_90)
        return cls(value, value * math.exp(-log_half), value * math.exp(log_half), chance)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"ratio": self.value, "low": self.low, "high": self.high, "chance": self.chance, "tie": self.is_tie}

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Within the JSON of an answer a ratio is what :meth:`to_dict` gives."""
        return core_schema.is_instance_schema(
            cls, serialization=core_schema.plain_serializer_function_ser_schema(cls.to_dict)
        )


def ratio(a: Pair, b: Pair) -> Ratio:
    """Time of ``a`` over time of ``b``, and the chance that ``a`` is the faster.

    The same pair twice has the ratio 1 and no interval.
    """
    if _same(a, b):
        return Ratio(1.0, 1.0, 1.0, 0.5)
    if a.timing.grade == b.timing.grade == "measured" and _samples(a) and _samples(b):
        return _of_samples(a.timing, b.timing)
    return product([(a, 1), (b, -1)])


def product(factors: Sequence[tuple[Pair, int]]) -> Ratio:
    """The product of times, each to a whole power: a ratio is that of two, with the powers 1 and -1.

    What two times of one model share of their errors is what makes the interval of their ratio as narrow as
    :mod:`moe_codesign.calibrations.ratios` says; the errors of all times together follow from that. A time that is
    there with several powers counts with their sum, so that over itself it is exactly 1.
    """
    powers: list[tuple[Pair, int]] = []
    for pair, power in factors:
        place = next((i for i, (other, _) in enumerate(powers) if _same(pair, other)), None)
        if place is None:
            powers.append((pair, power))
        else:
            powers[place] = (powers[place][0], powers[place][1] + power)
    powers = [(pair, power) for pair, power in powers if power]
    value = math.exp(math.fsum(power * math.log(pair.timing.latency_us) for pair, power in powers))
    if [power for _, power in powers] == [1, -1]:
        value = powers[0][0].timing.latency_us / powers[1][0].timing.latency_us
    return Ratio.around(value, _log_half(powers))


def joined(ratios: list[Ratio], weights: list[float]) -> Ratio:
    """The weighted geometric mean of ratios whose errors go together, as those of one model of one chip do."""
    total = sum(weights)
    value = math.exp(sum(w * math.log(one.value) for w, one in zip(weights, ratios, strict=True)) / total)
    return Ratio.around(value, sum(w * one.log_half for w, one in zip(weights, ratios, strict=True)) / total)


def _log_half(powers: Sequence[tuple[Pair, int]]) -> float:
    """Half-width of the logarithm of a product of different times."""
    if not powers:
        return 0.0
    halves = [math.log(pair.timing.high_us / pair.timing.latency_us) for pair, _ in powers]
    shared = np.diag(np.square(halves))
    for i, (a, _) in enumerate(powers):
        for j, (b, _) in enumerate(powers[:i]):
            shared[i, j] = shared[j, i] = (halves[i] ** 2 + halves[j] ** 2) / 2 * (1 - _factor(a, b) ** 2)
    power = np.array([power for _, power in powers], dtype=float)
    if len(powers) > 2 or power.sum() != 0:
        shared = _possible(shared)
    return math.sqrt(max(0.0, float(power @ shared @ power)))


def _factor(a: Pair, b: Pair) -> float:
    """The interval of a ratio over that of two independent times; 1 where nothing is known to be shared."""
    law = law_of(a.timing.grade, a.chip, a.workload.dtype)
    if law is None or _model(a) != _model(b):
        return 1.0
    return law.factor(distance(_sizes(a), _sizes(b)), other_tiles=a.tiles != b.tiles)


def _possible(covariance: F64) -> F64:
    """The nearest covariance that errors can have: of three times, laws of pairs may ask what cannot be at once."""
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray((vectors * np.maximum(values, 0.0)) @ vectors.T)


def _model(pair: Pair) -> tuple[str, str, str | None, str]:
    """Whose errors a time has."""
    return pair.chip, pair.timing.grade, pair.kernel, pair.workload.dtype


def _same(a: Pair, b: Pair) -> bool:
    return a == b or (
        _sizes(a) == _sizes(b) and (a.chip, a.workload, a.tiles, a.timing) == (b.chip, b.workload, b.tiles, b.timing)
    )


def _sizes(pair: Pair) -> tuple[float, ...]:
    """As one rank has them, in the order of :data:`moe_codesign.calibrations.ratios.SIZES`."""
    shape, workload = pair.shape, pair.workload
    return (
        shape.expert_hidden_size,
        shape.moe_intermediate_size / workload.tp,
        shape.num_experts / workload.ep,
        shape.num_experts_per_tok,
        workload.num_tokens,
    )


def _samples(pair: Pair) -> bool:
    return len(pair.timing.samples_us) >= _FEWEST_SAMPLES


def _of_samples(a: Timing, b: Timing) -> Ratio:
    """From medians of samples that are drawn again, the same draws every time."""
    rng = np.random.default_rng(0)
    first, second = (
        np.median(rng.choice(np.array(one.samples_us), (_RESAMPLED, len(one.samples_us))), axis=1) for one in (a, b)
    )
    value = a.latency_us / b.latency_us
    low, high = np.quantile(first / second, (0.05, 0.95))
    return Ratio(value, min(value, float(low)), max(value, float(high)), float(np.mean(first < second)))
