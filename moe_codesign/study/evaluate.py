"""One candidate: constraints first, then a time per workload, then its pairs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from moe_codesign.chips import Chip, DatasheetChip
from moe_codesign.compiler.kernels import default_tiles, kernel_for
from moe_codesign.compiler.tile_table import Tables
from moe_codesign.cost.estimate import Answer, Estimate, NoTileError, slowest
from moe_codesign.cost.memory import over_memory
from moe_codesign.cost.ours.model import estimate_layer
from moe_codesign.domain.failure import Failure, FailureKind
from moe_codesign.domain.pair import Pair
from moe_codesign.domain.rank import RankWork, rank_work
from moe_codesign.domain.shape import MoEShape
from moe_codesign.domain.tile_pair import TilePair
from moe_codesign.domain.trial import Answered, Outcome, Refused
from moe_codesign.domain.workload import Workload
from moe_codesign.errors import MachineError, UserError
from moe_codesign.funnel import Timed, pick, promising, race, reason_of
from moe_codesign.measure import MeasuringProcess
from moe_codesign.quality import Qualities, Quality
from moe_codesign.study.batch import BatchTimes, batch_times
from moe_codesign.study.screen import Screen, judge_of
from moe_codesign.study.space import Space
from moe_kernels.kernel import Kernel

Wanted = TilePair | Literal["default"] | None
"""Tiles to time: given ones, the kernel's default for the problem, or (None) the best of the space."""


@dataclass(frozen=True)
class Judged:
    """Shapes before they are timed.

    Args:
        qualities: of each.
        failures: the first constraint that each breaks; None for those that may be timed.
    """

    qualities: Qualities
    failures: list[Failure | None]


class Evaluator:
    """Evaluates shapes and tiles of one space on one chip: measured where it is here, estimated where not."""

    def __init__(
        self, space: Space, chip: Chip, reference: MoEShape, tables: Tables, bench: MeasuringProcess | None
    ) -> None:
        self.space, self.chip, self.reference, self.tables, self.bench = space, chip, reference, tables, bench
        self.workloads = space.workloads_on(chip)
        # A measurement runs one draw of a random routing; an estimate is of what is to be expected.
        self._draw = None if bench is None else space.seed
        self.kernel: Kernel | None = kernel_for(chip) if not isinstance(chip, DatasheetChip) else None
        self.tile_space = space.tile_space(chip)
        self.judge = judge_of(space, reference)
        # What a routing is has no part in whether a shape may be timed.
        one_layer = [next(iter(table.by_layer(self._draw).values())) for table in self.workloads]
        self._screen = Screen(space, chip, one_layer, self.judge)

    def judged(self, shapes: Sequence[MoEShape]) -> "Judged":
        """What the space has against shapes, before any of them is timed."""
        qualities = self.judge.qualities(shapes)
        return Judged(qualities, self._screen.failures(shapes, qualities))

    def timed(self, shapes: Sequence[MoEShape]) -> list[BatchTimes]:
        """Estimated times of shapes that meet the constraints, each with its best tiles, under each workload in
        turn."""
        return [
            batch_times(self.tables, self.chip, shapes, table.by_layer(self._draw), self.tile_space)
            for table in self.workloads
        ]

    def evaluate_all(self, shapes: Sequence[MoEShape]) -> list[Outcome]:
        """:meth:`evaluate` of many shapes, by estimates of their best tiles alone."""
        judged = self.judged(shapes)
        timed = self.timed([s for s, failure in zip(shapes, judged.failures, strict=True) if failure is None])
        outcomes: list[Outcome] = []
        place = 0
        for index, (shape, failure) in enumerate(zip(shapes, judged.failures, strict=True)):
            if failure is not None:
                outcomes.append(Refused(failure))
                continue
            answers = [times.answer(place) for times in timed]
            place += 1
            if failed := [answer for _, answer in answers if isinstance(answer, Failure)]:
                outcomes.append(Refused(failed[0]))
            else:
                own = judged.qualities.of(index)
                outcomes.append(
                    Answered(
                        tuple(
                            self._pair(shape, workload, answer, own)
                            for workload, answer in answers
                            if isinstance(answer, Estimate)
                        )
                    )
                )
        return outcomes

    def evaluate(self, shape: MoEShape, tiles: dict[str, TilePair] | None, *, seed: int) -> Outcome:
        """One pair for each workload, or the first thing that is in the way.

        Args:
            shape: the candidate.
            tiles: for each workload's name (GEMM 1, GEMM 2); None ranks all tiles of the space and keeps the best.
            seed: of a measurement's operands.
        """
        if self.bench is None and tiles is None:
            return self.evaluate_all([shape])[0]
        judged = self.judged([shape])
        if (failure := judged.failures[0]) is not None:
            return Refused(failure)
        pairs = []
        for table in self.workloads:
            layers = table.by_layer(self._draw)
            layer, timed = self._slowest(shape, layers, tiles[table.name] if tiles else None, seed)
            if isinstance(timed, Failure):
                return Refused(timed)
            pairs.append(self._pair(shape, layers[layer], timed, judged.qualities.of(0)))
        return Answered(tuple(pairs))

    def reference_pairs(self, wanted: Wanted = "default") -> tuple[tuple[Pair, ...], bool]:
        """The reference model with the tile that an untuned user gets, from which gains are counted, or its best ones.

        Args:
            wanted: its tiles.

        Returns:
            Its pairs, none of a workload that it cannot be timed under; and whether one is missing for a reason that
            may not be there the next time, as a measurement that failed.
        """
        pairs: list[Pair] = []
        by_chance = False
        for table in self.workloads:
            try:
                layers = table.by_layer(self._draw)
                layer, timed = self._slowest(self.reference, layers, wanted, 0)
            except UserError:
                continue
            except MachineError:
                raise
            except Exception:  # the search does without gains
                by_chance = True
                continue
            if isinstance(timed, Failure):
                by_chance |= timed.kind is FailureKind.MEASUREMENT
            else:
                quality = self.judge.qualities([self.reference]).of(0)
                pairs.append(self._pair(self.reference, layers[layer], timed, quality))
        return tuple(pairs), by_chance

    def _pair(self, shape: MoEShape, workload: Workload, timed: Estimate, quality: Quality) -> Pair:
        return Pair(
            chip=self.chip.name,
            shape=shape,
            workload=workload,
            kernel=timed.kernel,
            tiles=TilePair(*timed.tiles) if timed.tiles else None,
            timing=timed.timing,
            quality_ratio=quality.ratio,
            quality_by_law=quality.by_law,
            outside=self.judge.outside(shape),
            notes=(*over_memory(self.chip, shape, workload), *timed.notes),
        )

    def _slowest(
        self, shape: MoEShape, layers: Mapping[int | None, Workload], wanted: Wanted, seed: int
    ) -> tuple[int | None, Answer]:
        """The time of the layer that takes longest, which is the only one to be measured where the chip is here."""
        if len(layers) == 1:
            ((layer, workload),) = layers.items()
            return layer, self._time(shape, workload, wanted, seed)
        layer, estimated = slowest({key: self._time(shape, one, wanted, None) for key, one in layers.items()})
        if self.bench is None or isinstance(estimated, Failure):
            return layer, estimated
        timed = self._time(shape, layers[layer], wanted, seed)
        which = estimated.notes[-1:]
        return layer, timed if isinstance(timed, Failure) else replace(timed, notes=(*timed.notes, *which))

    def _time(self, shape: MoEShape, workload: Workload, wanted: Wanted, seed: int | None) -> Answer:
        """The time of one layer: measured where its chip is here, unless ``seed`` is None."""
        try:
            work = rank_work(shape, workload)
            tiles = wanted if isinstance(wanted, TilePair) else None
            if wanted == "default" and self.kernel is not None:
                tiles = default_tiles(self.kernel, work, self.chip.target)
            if self.bench is not None and self.kernel is not None and seed is not None:
                return self._measure(self.bench, self.kernel, work, tiles, seed)
            return estimate_layer(self.tables, self.chip, work, tiles=tiles, space=self.tile_space)
        except NoTileError as error:
            return Failure(FailureKind.COMPILER, str(error))
        except UserError as error:
            return Failure(FailureKind.UNSUPPORTED, str(error))

    def _measure(
        self, bench: MeasuringProcess, kernel: Kernel, work: RankWork, wanted: TilePair | None, seed: int
    ) -> Estimate | Failure:
        budget = self.space.budget
        pairs = [wanted] if wanted else self._promising(kernel, work)
        best = pick(race(bench, self.chip, kernel, work, pairs, seed=seed, seconds=budget.measure_seconds))
        return Estimate(best.timing, kernel.name, best.tiles) if isinstance(best, Timed) else reason_of(best)

    def _promising(self, kernel: Kernel, work: RankWork) -> list[TilePair]:
        top = self.space.budget.measure_top
        return promising(self.tables, self.chip, kernel, work, top=top, space=self.tile_space)
