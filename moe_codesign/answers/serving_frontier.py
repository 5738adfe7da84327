"""A model served on a chip: every deployment that fits, and those that no other one beats.

A deployment is a split over chips of one scale-up domain and a number of requests under way. What a user sees (tokens a
second) stands against what a chip gives (tokens a second of all its users).
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from moe_codesign.arrays import F64
from moe_codesign.chips import Chip
from moe_codesign.chips.schema import Price
from moe_codesign.cost.operations.answer import OperationTimes
from moe_codesign.cost.step.memory import held
from moe_codesign.cost.step.modes import Modes
from moe_codesign.cost.step.rules import StackRules
from moe_codesign.cost.step.serving import Load, serve
from moe_codesign.domain.attention import GroupedQueryAttention
from moe_codesign.domain.deployment import ModelSplit
from moe_codesign.domain.dtype import SCALE_BLOCK
from moe_codesign.domain.frontier import non_dominated
from moe_codesign.domain.latent_attention import LatentAttention
from moe_codesign.domain.model_shape import ModelShape
from moe_codesign.domain.timing import Grade
from moe_codesign.errors import UserError

_MOST_REQUESTS = 1024
"""Requests of one copy of attention that are tried at most, in powers of two."""


@dataclass(frozen=True, kw_only=True)
class ServingPoint:
    """One deployment and what it gives.

    Args:
        chips: of one copy of the model. split: how it is spread.
        requests: under way on all of them.
        tpot_ms, low_tpot_ms, high_tpot_ms: time for a token after the first, and its 90 % interval. ttft_ms: to the
            first.
        tokens_per_s_per_user, tokens_per_s_per_chip: of answers.
        usd_per_mtok, joules_per_token, tokens_per_s_per_mw: of answers; None where the chip has no price or power.
        held_gb: weights and cache on each chip.
    """

    chips: int
    split: ModelSplit
    requests: int
    tpot_ms: float
    low_tpot_ms: float
    high_tpot_ms: float
    ttft_ms: float
    tokens_per_s_per_user: float
    tokens_per_s_per_chip: float
    usd_per_mtok: float | None
    joules_per_token: float | None
    tokens_per_s_per_mw: float | None
    held_gb: float

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**dataclasses.asdict(self), "split": dataclasses.asdict(self.split)}


@dataclass(frozen=True, kw_only=True)
class ServingFrontier:
    """A model on a chip.

    Args:
        model, chip, stack: their names.
        isl, osl: tokens of a prompt and of an answer.
        tried: deployments that fit. refused: those that do not.
        points: those that no other one beats in tokens a second for a user and for a chip, fastest for a user first.
        price: what costs are by. grade: of the times. notes: why they deserve less trust.
        reason: why the chip has no point, as that the model does not fit; empty where it has.
    """

    model: str
    chip: str
    stack: str
    isl: int
    osl: int
    tried: int
    refused: int
    points: tuple[ServingPoint, ...]
    price: Price | None
    grade: Grade
    notes: tuple[str, ...] = ()
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        found = dataclasses.asdict(self)
        return {
            **found,
            "price": None if self.price is None else self.price._asdict(),
            "points": [point.to_dict() for point in self.points],
        }


def serving_frontier(
    model: ModelShape,
    chip: Chip,
    operations: OperationTimes,
    rules: StackRules,
    *,
    stack: str,
    isl: int,
    osl: int,
    most_chips: int,
) -> ServingFrontier:
    """Every deployment that fits, and the frontier of them.

    Raises:
        UserError: none fits, with the sum of the one that comes nearest; or an operation that is not known.
    """
    splits = _splits(model, chip, most_chips)
    if not splits:
        raise UserError(f"{model.name} cannot be split over up to {most_chips} {chip.name}", fix="give more chips")
    requests = 2.0 ** np.arange(int(np.log2(_MOST_REQUESTS)) + 1)
    grid = [(split, count) for split in splits for count in requests]
    columns = {
        name: np.array([float(getattr(split, name)) for split, _ in grid]) for name in ("tp", "dp", "moe_tp", "ep")
    }
    sequences = np.array([count for _, count in grid])
    memory = held(model, chip, columns, sequences, isl + osl)
    fits = np.flatnonzero(memory.fits)
    if not len(fits):
        nearest = int(np.argmin(memory.weights + memory.cache))
        raise UserError(
            f"{model.name} does not fit on {grid[nearest][0].chips} {chip.name}: {memory.say(nearest)}",
            fix="give more chips, or a smaller data type",
        )
    load = Load(
        concurrency=sequences[fits],
        isl=np.full(len(fits), float(isl)),
        osl=np.full(len(fits), float(osl)),
        **{name: column[fits] for name, column in columns.items()},
    )
    served = serve(model, load, Modes.of(model.types, chip), operations, rules)
    chips = load.tp * load.dp
    per_user = 1e3 / served.tpot_ms
    per_chip = per_user * load.concurrency * load.dp / chips
    kept = non_dominated(np.stack([per_user, per_chip], axis=1), (True, True))
    kept.sort(key=lambda place: -per_user[place])
    spread = served.spread + np.log(chip.doubt)
    points = tuple(
        _point(chip, grid[fits[place]][0], place, load, served.tpot_ms, spread, served.ttft_ms,
               float((memory.weights + memory.cache)[fits[place]]))
        for place in kept
    )  # fmt: skip
    return ServingFrontier(
        model=model.name,
        chip=chip.name,
        stack=stack,
        isl=isl,
        osl=osl,
        tried=len(fits),
        refused=len(grid) - len(fits),
        points=points,
        price=chip.price,
        grade=operations.grade,
        notes=(*operations.notes, *served.notes),
    )


def _point(
    chip: Chip, split: ModelSplit, place: int, load: Load, tpot: F64, spread: F64, ttft: F64, held_bytes: float
) -> ServingPoint:
    time = float(tpot[place])
    requests = float(load.concurrency[place] * load.dp[place])
    per_chip = 1e3 / time * requests / split.chips
    price, power = chip.price, chip.power.all_in_kw
    return ServingPoint(
        chips=split.chips,
        split=split,
        requests=int(requests),
        tpot_ms=time,
        low_tpot_ms=time * float(np.exp(-spread[place])),
        high_tpot_ms=time * float(np.exp(spread[place])),
        ttft_ms=float(ttft[place]),
        tokens_per_s_per_user=1e3 / time,
        tokens_per_s_per_chip=per_chip,
        usd_per_mtok=None if price is None else price.usd_per_hour / (per_chip * 3600 / 1e6),
        joules_per_token=None if power is None else 1e3 * power / per_chip,
        tokens_per_s_per_mw=None if power is None else 1e3 * per_chip / power,
        held_gb=held_bytes / 1e9,
    )


def _splits(model: ModelShape, chip: Chip, most_chips: int) -> list[ModelSplit]:
    """Splits of a model over powers of two of chips of one scale-up domain."""
    domain = chip.link.domain_chips if chip.link is not None else 1
    sizes = [2**power for power in range(11) if 2**power <= min(most_chips, domain)]
    return [
        split
        for chips in sizes
        for tp in sizes
        if chips % tp == 0 and _divides_attention(model, tp)
        for ep in (sizes if model.moe is not None else [1])
        if chips % ep == 0 and (tp == chips or ep == chips) and _divides_experts(model, chips // ep, ep)
        for split in (ModelSplit(tp=tp, dp=chips // tp, moe_tp=chips // ep, ep=ep),)
    ]


def _divides_attention(model: ModelShape, tp: int) -> bool:
    heads = [
        group.attention.num_heads
        for group in model.groups
        if isinstance(group.attention, GroupedQueryAttention | LatentAttention)
    ]
    return all(count % tp == 0 for count in heads)


def _divides_experts(model: ModelShape, moe_tp: int, ep: int) -> bool:
    if model.moe is None:
        return ep == 1
    block = SCALE_BLOCK.get(model.types.experts, 1)
    return model.moe.num_experts % ep == 0 and model.moe.moe_intermediate_size % (moe_tp * block) == 0
