"""What a search can optimise: metrics of a pair, and objectives, which are a metric under a workload."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from moe_codesign.chips import Chip
from moe_codesign.domain.pair import Pair
from moe_codesign.domain.workload import Workload
from moe_codesign.tables import did_you_mean

Need = Literal["price", "power"]
"""What a metric needs a chip file, or a space, to say."""


class Known(NamedTuple):
    """What metrics are computed from.

    Args:
        latency_us: time of one layer.
        num_layers: layers of the model.
        quality_ratio: quality over the reference's.
        workload: the batch and its split.
    """

    latency_us: float
    num_layers: int
    quality_ratio: float
    workload: Workload

    @classmethod
    def of(cls, pair: Pair) -> "Known":
        """What a pair knows of itself."""
        return cls(pair.timing.latency_us, pair.shape.num_layers, pair.quality_ratio, pair.workload)


@dataclass(frozen=True)
class Metric:
    """One number of a pair.

    All are of the model's MoE layers alone: no attention, no network.

    Args:
        name: as objectives and reports spell it.
        unit: of the number; empty for a ratio.
        maximise: whether more is better.
        of: computes it from what is known of a pair, and its chip.
        needs: what the chip file must say for it, if anything.
        of_shape: it depends on the shape alone, so that its objective names no workload.
    """

    name: str
    unit: str
    maximise: bool
    of: Callable[[Known, Chip], float]
    needs: Need | None = None
    of_shape: bool = False

    def missing(self, chip: Chip) -> Need | None:
        """What the chip file does not say and the metric needs, or None."""
        known = {"price": chip.price, "power": chip.all_in_w}
        return self.needs if self.needs is not None and known[self.needs] is None else None


def _seconds(known: Known) -> float:
    """Time of all the model's MoE layers."""
    return known.latency_us * 1e-6 * known.num_layers


def _tokens_per_s(known: Known) -> float:
    """Tokens per second of all the chips that share the layer, together."""
    return known.workload.num_tokens / _seconds(known)


def _usd_per_mtok(known: Known, chip: Chip) -> float:
    if chip.price is None:
        raise ValueError(f"{chip.name} has no price")
    return chip.price.usd_per_hour * known.workload.chips / (_tokens_per_s(known) * 3600 / 1e6)


def _joules_per_token(known: Known, chip: Chip) -> float:
    if chip.all_in_w is None:
        raise ValueError(f"{chip.name} has no power")
    return chip.all_in_w * known.workload.chips / _tokens_per_s(known)


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("latency_us", "us", False, lambda known, _: known.latency_us),
        Metric("usd_per_mtok", "$/Mtok", False, _usd_per_mtok, needs="price"),
        Metric("joules_per_token", "J/token", False, _joules_per_token, needs="power"),
        Metric("quality", "", True, lambda known, _: known.quality_ratio, of_shape=True),
        Metric("tokens_per_s_per_chip", "tokens/s", True, lambda known, _: _tokens_per_s(known) / known.workload.chips),
        Metric("tokens_per_s_per_user", "tokens/s", True, lambda known, _: 1.0 / _seconds(known)),
    )
}
"""Every metric, by name."""


def metrics_of(pair: Pair, chip: Chip) -> dict[str, float]:
    """Every metric of a pair that its chip's file can answer."""
    return {name: metric.of(Known.of(pair), chip) for name, metric in METRICS.items() if metric.missing(chip) is None}


@dataclass(frozen=True)
class Objective:
    """A metric under one workload, or of the shape alone: ``decode.latency_us``, ``quality``.

    Raises:
        ValueError: the metric needs a workload and has none, or the other way round.
    """

    metric: Metric
    workload: str | None = None

    def __post_init__(self) -> None:
        if self.metric.of_shape and self.workload is not None:
            raise ValueError(f"{self.metric.name} belongs to no workload; write {self.metric.name}")
        if not self.metric.of_shape and not self.workload:
            raise ValueError(f"{self.metric.name} belongs to a workload; write WORKLOAD.{self.metric.name}")

    @classmethod
    def parse(cls, text: str) -> "Objective":
        """Read ``METRIC`` or ``WORKLOAD.METRIC``; the inverse of ``str``.

        Raises:
            ValueError: unknown metric (names the nearest), or as the class.
        """
        workload, dot, name = text.rpartition(".")
        if name not in METRICS:
            raise ValueError(f"unknown metric{did_you_mean(name, METRICS)}")
        return cls(METRICS[name], workload if dot else None)

    def __str__(self) -> str:
        return self.metric.name if self.workload is None else f"{self.workload}.{self.metric.name}"

    def __reduce__(self) -> tuple[Callable[[str], "Objective"], tuple[str]]:
        """To another process it goes as its text: a metric holds functions without a name."""
        return Objective.parse, (str(self),)

    def value(self, pairs: Sequence[Pair], chip: Chip) -> float:
        """The objective's number for a trial with these pairs, one for each workload.

        Raises:
            ValueError: no pair is of the objective's workload, or the chip's file lacks a price or power.
        """
        return self.of([Known.of(pair) for pair in pairs], chip)

    def of(self, known: Sequence[Known], chip: Chip) -> float:
        """The same of what is known of pairs that are not made yet."""
        for one in known:
            if self.workload in (None, one.workload.name):
                return self.metric.of(one, chip)
        raise ValueError(f"objective {self} has no pair of its workload")
