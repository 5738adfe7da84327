"""Time and cost of a layer as one of its sizes grows, and the edges that the time runs over."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import numpy as np

from moe_codesign.answers.edges import EdgeKind, crossed
from moe_codesign.arrays import F64
from moe_codesign.chips import Chip
from moe_codesign.compiler.tile_table import Tables
from moe_codesign.cost.estimate import Estimate, NoTileError, attempt, failure_of
from moe_codesign.cost.ours.losses import losses_of
from moe_codesign.cost.ours.times import OurTimes, Times, layer_times
from moe_codesign.domain.dtype import SCALE_BLOCK, SCALE_GROUP
from moe_codesign.domain.failure import Failure, FailureKind
from moe_codesign.domain.metrics import METRICS, Known
from moe_codesign.domain.rank import RankWork, rank_work
from moe_codesign.domain.rank_works import RankWorks
from moe_codesign.domain.shape import MoEShape
from moe_codesign.domain.timing import Timing
from moe_codesign.domain.workload import Workload
from moe_codesign.errors import UserError

SweptField = Literal["moe_intermediate_size", "num_experts", "num_experts_per_tok", "num_tokens"]
SWEPT_FIELDS: tuple[SweptField, ...] = get_args(SweptField)
"""What can grow while everything else stays a model's."""
MOST_VALUES = 20_000
_COUNTS = 0.01
"""An edge is worth naming from this share of the time on."""


@dataclass(frozen=True)
class SweptPoint:
    """The layer at one value.

    Args:
        value: of the field.
        timing: of one layer with its best tiles; None where it has none.
        us_per_unit: the time over the value.
        usd_per_mtok: dollars per million tokens of all the model's MoE layers; None without a price of the chip.
        tiles: of GEMM 1 and GEMM 2; empty at grade ``datasheet``.
        losses_us: what padding, waves, launches and memory cost.
        error: why there is no time.
    """

    value: int
    timing: Timing | None
    us_per_unit: float | None = None
    usd_per_mtok: float | None = None
    tiles: str = ""
    losses_us: dict[str, float] = field(default_factory=dict)
    error: Failure | None = None


@dataclass(frozen=True)
class Edge:
    """What the time runs over between two neighbouring values.

    Args:
        last: the last value before it. first: the first one past it.
        kinds: what it is of; several may fall together.
        what: in words, one for each thing.
        lost_us: what the step costs beyond what growing explains; 0 where nothing is lost.
        lost: the same, over the time before.
    """

    last: int
    first: int
    kinds: tuple[EdgeKind, ...]
    what: tuple[str, ...]
    lost_us: float
    lost: float


@dataclass(frozen=True)
class SweetSpots:
    """One size of a layer on one chip.

    Args:
        chip: its name.
        field: what grows. model: the name or the sizes of the shape that everything else is of.
        workload: what the layer runs; ``num_tokens`` is a point's own where it grows.
        points: by value, the least first. edges: likewise.
        spots: the sweet spots: values right before an edge past which time is lost.
        notes: why times deserve less trust, each once.
    """

    chip: str
    model: str
    field: SweptField
    workload: Workload
    points: list[SweptPoint]
    edges: list[Edge]
    spots: list[int]
    notes: list[str]


def swept_values(low: int, high: int, step: int) -> range:
    """Values from ``low`` to ``high``.

    Raises:
        UserError: no value is left, or there are too many.
    """
    for name, value in (("low", low), ("high", high), ("step", step)):
        if value < 1:
            raise UserError(name, value=value, fix="give a whole number of at least 1")
    values = range(low, high + 1, step)
    if len(values) < 2:
        raise UserError(f"low = {low}, high = {high}, step = {step} are fewer than two values", fix="widen the range")
    if len(values) > MOST_VALUES:
        raise UserError(f"{len(values):,} values", fix=f"give a larger step, for {MOST_VALUES:,} or fewer")
    return values


def sweet_spots_of(
    shape: MoEShape, chip: Chip, workload: Workload, swept: SweptField, values: Sequence[int], tables: Tables
) -> SweetSpots:
    """Time a layer at each value of one of its sizes with its best tiles there, and find the edges.

    An edge lies between two neighbouring values where 1 % of the time or more is lost beyond what growing explains:
    what is lost to padding and waves grows by so much more than the work does, or the time by so much more than the
    physical bound's FLOPs and bytes do, whichever is more. What the edge is of is read from the tiles of the value
    before it: which of the things that they cut the problem into is begun anew, and left empty for the most part.
    """
    works: dict[int, RankWork] = {}
    points: dict[int, SweptPoint] = {}
    cases: dict[int, tuple[MoEShape, Workload]] = {}
    for value in values:
        try:
            cases[value] = _case(shape, workload, swept, value)
            works[value] = rank_work(*cases[value])
        except UserError as error:
            kind = FailureKind.SPLIT if value in cases else FailureKind.SHAPE
            points[value] = SweptPoint(value, None, error=replace(failure_of(error), kind=kind))
    edges = _split_edges(cases, list(values))
    notes: dict[str, None] = {}
    try:
        times = layer_times(tables, chip, RankWorks.of(list(works.values()))) if works else None
    except (UserError, NoTileError) as error:
        points |= {value: SweptPoint(value, None, error=failure_of(error)) for value in works}
        times = None
    if times is not None:
        losses = losses_of(times) if isinstance(times, OurTimes) else [{} for _ in works]
        for place, (value, lost) in enumerate(zip(works, losses, strict=True)):
            points[value] = _point(chip, times, place, value, *cases[value], lost)
            answer = attempt(lambda place=place: times.estimate(place))  # type: ignore[misc]
            notes |= dict.fromkeys(answer.notes if isinstance(answer, Estimate) else ())
        edges += _priced_edges(times, losses, list(works))
    edges.sort(key=lambda edge: edge.last)
    return SweetSpots(
        chip=chip.name,
        model=shape.name or shape.label(),
        field=swept,
        workload=workload,
        points=[points[value] for value in values],
        edges=edges,
        spots=list(dict.fromkeys(edge.last for edge in edges if edge.lost_us > 0)),
        notes=list(notes),
    )


def _case(shape: MoEShape, workload: Workload, swept: SweptField, value: int) -> tuple[MoEShape, Workload]:
    if swept == "num_tokens":
        return shape, replace(workload, num_tokens=value)
    return shape.replaced(**{swept: value}), workload


def _point(
    chip: Chip, times: Times, place: int, value: int, shape: MoEShape, workload: Workload, lost: dict[str, float]
) -> SweptPoint:
    answer = attempt(lambda: times.estimate(place))
    if isinstance(answer, Failure):
        return SweptPoint(value, None, error=answer)
    us = answer.timing.latency_us
    metric = METRICS["usd_per_mtok"]
    usd = metric.of(Known(us, shape.num_layers, 1.0, workload), chip) if metric.missing(chip) is None else None
    tiles = " | ".join(tile.label() for tile in answer.tiles)
    return SweptPoint(value, answer.timing, us / value, usd, tiles, lost)


def _split_edges(cases: dict[int, tuple[MoEShape, Workload]], values: list[int]) -> list[Edge]:
    """One edge of a kind at the first value that cannot be split so, however many there are."""
    found: dict[EdgeKind, Edge] = {}
    for last, first in itertools.pairwise([values[0], *values]):
        if first not in cases or (reason := cases[first][1].misfit(cases[first][0])) is None:
            continue
        shape, workload = cases[first]
        divides = shape.moe_intermediate_size % workload.tp == 0 and shape.num_experts % workload.ep == 0
        is_scaled = workload.dtype in SCALE_BLOCK or workload.dtype in SCALE_GROUP
        kind: EdgeKind = "scale block" if divides and is_scaled else "split"
        found.setdefault(kind, Edge(last, first, (kind,), (reason,), 0.0, 0.0))
    return list(found.values())


def _priced_edges(times: Times, losses: Sequence[dict[str, float]], values: list[int]) -> list[Edge]:
    is_compute = times.bounds.compute_us >= times.bounds.memory_us
    edges = []
    empty: list[list[tuple[EdgeKind, str]]] = [[] for _ in values[1:]]
    of_gemms = [empty, empty]
    if isinstance(times, OurTimes):
        of_gemms = [crossed(one, f"GEMM {number}") for number, one in enumerate(times.chosen, 1)]
    us = times.latency_us
    growth = np.maximum(
        times.bounds.compute_us[1:] / times.bounds.compute_us[:-1],
        times.bounds.memory_us[1:] / times.bounds.memory_us[:-1],
    )
    for place, (last, first) in enumerate(itertools.pairwise(values)):
        if place in times.refused or place + 1 in times.refused:
            continue
        if is_compute[place] != is_compute[place + 1]:
            sides = ("memory", "compute") if is_compute[place + 1] else ("compute", "memory")
            edges.append(Edge(last, first, ("bound",), (f"the bound passes from {sides[0]} to {sides[1]}",), 0.0, 0.0))
        more = max(_emptied(losses, us, place), us[place + 1] - us[place] * growth[place])
        if more < _COUNTS * us[place]:
            continue
        found = [one for gemm in of_gemms for one in gemm[place]]
        kinds = tuple(dict.fromkeys(kind for kind, _ in found)) or ("tile",)
        what = tuple(text for _, text in found) or ("the tiles change to others, which fit less well",)
        edges.append(Edge(last, first, kinds, what, float(more), float(more / us[place])))
    return edges


def _emptied(losses: Sequence[dict[str, float]], us: F64, place: int) -> float:
    """How much more is lost to padding and waves at the next place than if that had grown as the work does."""
    before, after = (one.get("padding", 0.0) + one.get("waves", 0.0) for one in losses[place : place + 2])
    return float(after - before * (us[place + 1] - after) / (us[place] - before))


def best_per_unit(points: Sequence[SweptPoint]) -> SweptPoint | None:
    """The point whose time over its value is least; None where no point has a time."""
    timed = [point for point in points if point.us_per_unit is not None]
    return min(timed, key=lambda point: point.us_per_unit or np.inf, default=None)
