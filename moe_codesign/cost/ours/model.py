"""Answers about our own kernels: the best tiles of a layer or of a grouped GEMM, what they take, and what they lose."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, TypeVar

from moe_codesign.chips import Chip
from moe_codesign.compiler.kernels import kernel_for
from moe_codesign.compiler.tile_table import Tables, TileSpace, TileTable
from moe_codesign.cost.estimate import ABSURD, Answer, Estimate, Need, NoTileError, attempt, failure_of
from moe_codesign.cost.memory import over_memory
from moe_codesign.cost.ours.losses import losses_of
from moe_codesign.cost.ours.prices import prices_of
from moe_codesign.cost.ours.times import OurTimes, Times, gemm_times, layer_times
from moe_codesign.cost.tile_times import TileTimes
from moe_codesign.domain.grouped_gemm import GroupedGemm
from moe_codesign.domain.grouped_gemms import GroupedGemms
from moe_codesign.domain.question import OurGemm, OurLayer
from moe_codesign.domain.rank import RankWork, rank_work
from moe_codesign.domain.rank_works import RankWorks
from moe_codesign.domain.tile_pair import TilePair
from moe_codesign.errors import UserError
from moe_kernels.kernel import Op, up_op
from moe_kernels.tile import TileConfig

T = TypeVar("T")


@dataclass(frozen=True)
class OurKernels:
    """Answers questions about our kernels on one chip; see :class:`moe_codesign.cost.estimate.CostModel`.

    ``with_losses``: also say of layers what padding, waves, launches and memory cost.
    """

    chip: Chip
    tables: Tables
    with_losses: bool = False

    at_once: ClassVar[int] = 1000

    def needs(self, questions: Iterable[OurLayer | OurGemm]) -> Iterator[Need]:
        """The tile spaces of all questions that leave the tile to us, but for those that were asked for before.

        A tile that is given is compiled alone.
        """
        ops: dict[str, set[Op]] = {}
        for question in questions:
            match question:
                case OurLayer(tiles=None, kernel=None):
                    up = up_op(gated=question.shape.gated)
                    ops.setdefault(question.workload.dtype, set()).update((up, "down"))
                case OurGemm(tile=None, kernel=None):
                    ops.setdefault(question.gemm.dtype, set()).add(question.gemm.op)
        for dtype, wanted in ops.items():
            if self.chip.compiles and self.chip.has(dtype) and dtype in (kernel := kernel_for(self.chip)).dtypes:
                new = [op for op in sorted(wanted) if not self.tables.has(self.chip, kernel, op, dtype)]
                yield from [(self.chip, None, new, dtype)] if new else []

    def answer(self, questions: Sequence[OurLayer | OurGemm]) -> list[Answer]:
        """An answer to each question, in their order."""
        layers = {i: one for i, one in enumerate(questions) if isinstance(one, OurLayer)}
        gemms = {i: one for i, one in enumerate(questions) if isinstance(one, OurGemm)}
        found = self._layers(layers) | self._gemms(gemms)
        return [found[i] for i in range(len(questions))]

    def _layers(self, questions: dict[int, OurLayer]) -> dict[int, Answer]:
        found: dict[int, Answer] = {}
        alike: dict[Hashable, dict[int, RankWork]] = defaultdict(dict)
        for i, question in questions.items():
            try:
                work = rank_work(question.shape, question.workload)
            except (UserError, *ABSURD) as error:
                found[i] = failure_of(error)
            else:
                alike[work.gated, work.dtype, question.tiles, question.kernel][i] = work
        for works in alike.values():
            same = questions[next(iter(works))]

            def ask(some: Sequence[RankWork], same: OurLayer = same) -> Times:
                works = RankWorks.of(some)
                return layer_times(self.tables, self.chip, works, tiles=same.tiles, kernel_name=same.kernel)

            for i, answer in zip(works, _answers(ask, list(works.values()), self.with_losses), strict=True):
                if isinstance(answer, Estimate):
                    over = over_memory(self.chip, questions[i].shape, questions[i].workload)
                    answer = replace(answer, notes=(*over, *answer.notes))
                found[i] = answer
        return found

    def _gemms(self, questions: dict[int, OurGemm]) -> dict[int, Answer]:
        found: dict[int, Answer] = {}
        alike: dict[Hashable, dict[int, GroupedGemm]] = defaultdict(dict)
        for i, question in questions.items():
            gemm = question.gemm
            alike[gemm.op, gemm.dtype, gemm.accumulates, question.tile, question.kernel][i] = gemm
        for gemms in alike.values():
            same = questions[next(iter(gemms))]

            def ask(some: Sequence[GroupedGemm], same: OurGemm = same) -> Times:
                gemms = GroupedGemms.of(some)
                return gemm_times(self.tables, self.chip, gemms, tile=same.tile, kernel_name=same.kernel)

            found |= zip(gemms, _answers(ask, list(gemms.values())), strict=True)
        return found


def _answers(ask: Callable[[Sequence[T]], Times], problems: Sequence[T], with_losses: bool = False) -> list[Answer]:
    """An answer to each of some problems that are priced together.

    Args:
        ask: prices them. What is too large for something in one problem makes it raise for all of them, so that they
            are then asked one by one.
        problems: one or more.
        with_losses: as of :class:`OurKernels`.
    """
    try:
        times = ask(problems)
        losses = losses_of(times) if with_losses and isinstance(times, OurTimes) else [{} for _ in problems]
    except (UserError, NoTileError) as error:
        return [failure_of(error)] * len(problems)
    except ABSURD as error:
        if len(problems) == 1:
            return [failure_of(error)]
        return [answer for one in problems for answer in _answers(ask, [one], with_losses)]
    return [
        attempt(lambda place=place, lost=lost: replace(times.estimate(place), losses_us=lost))  # type: ignore[misc]
        for place, lost in enumerate(losses)
    ]


def rank_tiles(table: TileTable, gemm: GroupedGemm) -> TileTimes:
    """Time of the GEMM with every compiled tile [tiles].

    Raises:
        NoTileError: not one tile compiled.
    """
    return prices_of(table, gemm.dtype).times(GroupedGemms.of([gemm])).of(0)


def estimate_layer(
    tables: Tables,
    chip: Chip,
    work: RankWork,
    *,
    tiles: TilePair | None = None,
    kernel_name: str | None = None,
    space: TileSpace | None = None,
    with_losses: bool = False,
) -> Estimate:
    """One layer on the chip by our kernels; see :func:`moe_codesign.cost.ours.times.layer_times`, which prices many.

    Args:
        tables: compiled tiles.
        chip: where.
        work: the rank's share.
        tiles: of both GEMMs, or None for the fastest of the space.
        kernel_name: default the backend's own.
        space: tile values to choose from; default the kernel's.
        with_losses: also say what padding, waves, launches and memory cost.

    Raises:
        UserError: the chip lacks the data type, or the kernel is for another backend.
        NoTileError: the tile (or every tile) was refused; says why.
    """
    times = layer_times(tables, chip, RankWorks.of([work]), tiles=tiles, kernel_name=kernel_name, space=space)
    found = times.estimate(0)
    if with_losses and isinstance(times, OurTimes):
        return replace(found, losses_us=losses_of(times)[0])
    return found


def estimate_gemm(
    tables: Tables, chip: Chip, gemm: GroupedGemm, *, tile: TileConfig | None = None, kernel_name: str | None = None
) -> Estimate:
    """One grouped GEMM alone by our kernels; arguments and errors as for :func:`estimate_layer`."""
    return gemm_times(tables, chip, GroupedGemms.of([gemm]), tile=tile, kernel_name=kernel_name).estimate(0)
