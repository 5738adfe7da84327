"""What shapes are compared by across chips: one metric under a workload, or under a mix of workloads."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from moe_codesign.chips import Chip
from moe_codesign.domain.metrics import METRICS, Known, Metric, Objective
from moe_codesign.errors import UserError
from moe_codesign.study.space import Space


@dataclass(frozen=True)
class Goal:
    """A metric under one workload, or its mean over workloads; as a cost, of which less is better.

    Args:
        metric: of a time: every metric but quality.
        shares: the workloads by name, each with its share of the tokens that are served; they sum to 1.
    """

    metric: Metric
    shares: Mapping[str, float]

    @classmethod
    def of(
        cls,
        space: Space,
        chips: Sequence[Chip],
        objective: str | None = None,
        shares: Mapping[str, float] | None = None,
    ) -> "Goal":
        """The goal that is asked for.

        Args:
            space: whose objectives and workloads.
            chips: that have to be able to answer it.
            objective: WORKLOAD.METRIC, or with ``shares`` a metric alone. Default: the space's first objective that is
                of a workload; with ``shares`` latency_us.
            shares: how many of the tokens each workload serves, in any unit.

        Raises:
            UserError: no such metric or workload, a metric of the shape alone, or a chip whose file does not say what
                the metric needs.
        """
        if shares:
            metric = _metric(objective or "latency_us")
            if not all(math.isfinite(share) and share > 0 for share in shares.values()):
                raise UserError("shares", value=_listed(shares), fix="give numbers above 0, as decode=3,prefill=1")
            total = sum(shares.values())
            found = cls(metric, {name: share / total for name, share in shares.items()})
        else:
            asked = _objective(space, objective)
            assert asked.workload is not None, "a metric of a time belongs to a workload"
            found = cls(asked.metric, {asked.workload: 1.0})
        for chip in chips:
            names = [workload.name for workload in space.workloads_on(chip)]
            for name in found.shares:
                if name not in names:
                    raise UserError(
                        f"{chip.name} has no workload {name!r} in {space.name}",
                        fix=f"use one of {', '.join(names)}",
                    )
            if missing := found.metric.missing(chip):
                raise UserError(
                    f"{found.metric.name} of {chip.name}: its file has no {missing}",
                    fix=f"give it in the space's [{missing}], or drop the chip or the metric",
                )
        return found

    def cost(self, known: Sequence[Known], chip: Chip) -> float:
        """The cost of a layer whose times are known, one for each workload of :attr:`shares` in that order.

        It is in proportion to the times. Under one workload it is the metric, or one over it where more is better;
        over several it is of a token, weighted by their shares of the tokens.
        """
        return sum(self.cost_under(name, one, chip) for name, one in zip(self.shares, known, strict=True))

    def cost_under(self, workload: str, known: Known, chip: Chip) -> float:
        """What one workload adds to the cost."""
        value = self.metric.of(known, chip)
        cost = 1.0 / value if self.metric.maximise else value
        if len(self.shares) == 1:
            return cost
        # A time is that of a whole batch; every other metric is of one token already.
        tokens = known.workload.num_tokens if self.metric.name == "latency_us" else 1
        return self.shares[workload] * cost / tokens

    @property
    def unit(self) -> str:
        """Unit of a cost."""
        if self.metric.maximise:
            return f"1/({self.metric.unit})"
        return (
            f"{self.metric.unit}/token"
            if self.metric.name == "latency_us" and len(self.shares) > 1
            else self.metric.unit
        )

    def __str__(self) -> str:
        if len(self.shares) == 1:
            return f"{next(iter(self.shares))}.{self.metric.name}"
        mix = ", ".join(f"{share:.0%} of tokens in {name}" for name, share in self.shares.items())
        return f"{self.metric.name} a token ({mix})"


def _objective(space: Space, text: str | None) -> Objective:
    if text is None:
        for objective in space.objectives:
            if not objective.metric.of_shape:
                return objective
        raise UserError(f"{space.name} has no objective of a workload", fix="give one, as WORKLOAD.latency_us")
    try:
        found = Objective.parse(text)
    except ValueError as error:
        raise UserError("objective", value=text, fix=str(error)) from None
    _metric(found.metric.name)
    return found


def _metric(name: str) -> Metric:
    timed = [metric.name for metric in METRICS.values() if not metric.of_shape]
    if name not in timed:
        raise UserError("metric", value=name, fix="use one of " + ", ".join(timed))
    return METRICS[name]


def _listed(shares: Mapping[str, float]) -> str:
    return ",".join(f"{name}={share:g}" for name, share in shares.items())
