"""Estimated times of many shapes at once, under each workload of a chip."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from moe_codesign.arrays import F64
from moe_codesign.chips import Chip
from moe_codesign.compiler.tile_table import Tables, TileSpace
from moe_codesign.cost.estimate import Answer, NoTileError, slowest
from moe_codesign.cost.ours.times import Times, layer_times
from moe_codesign.domain.failure import Failure, FailureKind
from moe_codesign.domain.rank import rank_work
from moe_codesign.domain.rank_works import RankWorks
from moe_codesign.domain.shape import MoEShape
from moe_codesign.domain.workload import Workload
from moe_codesign.errors import UserError


@dataclass(frozen=True, eq=False)
class BatchTimes:
    """Times of shapes under one workload, each with its best tiles.

    Args:
        layers: the workload, by the layer whose loads its routing recorded; by None where it recorded none.
        times: of every shape, by the same layers; a failure where no shape has one.
    """

    layers: Mapping[int | None, Workload]
    times: Mapping[int | None, Times | Failure]

    def latency_us(self, count: int) -> F64:
        """Time of the slowest layer of each of ``count`` shapes, float64; NaN where there is none."""
        found = np.full(count, -np.inf)
        for times in self.times.values():
            if isinstance(times, Failure):
                return np.full(count, np.nan)
            own = np.array(times.latency_us, dtype=float)
            own[list(times.refused)] = np.nan
            found = np.maximum(found, own)  # a NaN stays one
        return found

    def answer(self, place: int) -> tuple[Workload, Answer]:
        """One shape's time, and the workload that it is of: that of the slowest layer."""
        answers = {layer: _answer(times, place) for layer, times in self.times.items()}
        layer, answer = slowest(answers)
        return self.layers[layer], answer


def batch_times(
    tables: Tables, chip: Chip, shapes: Sequence[MoEShape], layers: Mapping[int | None, Workload], space: TileSpace
) -> BatchTimes:
    """Time shapes under one workload.

    Args:
        tables: compiled tiles.
        chip: where.
        shapes: all of them gated, or none; each can be split as the workload asks.
        layers: see :class:`BatchTimes`.
        space: tile values to choose from.
    """
    found: dict[int | None, Times | Failure] = {}
    if not shapes:
        return BatchTimes(layers, found)
    for layer, workload in layers.items():
        try:
            works = RankWorks.of([rank_work(shape, workload) for shape in shapes])
            found[layer] = layer_times(tables, chip, works, space=space)
        except NoTileError as error:
            found[layer] = Failure(FailureKind.COMPILER, str(error))
        except UserError as error:
            found[layer] = Failure(FailureKind.UNSUPPORTED, str(error))
    return BatchTimes(layers, found)


def _answer(times: Times | Failure, place: int) -> Answer:
    if isinstance(times, Failure):
        return times
    try:
        return times.estimate(place)
    except NoTileError as error:
        return Failure(FailureKind.COMPILER, str(error))
    except UserError as error:
        return Failure(FailureKind.UNSUPPORTED, str(error))
