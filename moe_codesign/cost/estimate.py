"""An answer of a cost model: a time with its grade and interval, or why it has no time."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Protocol, TypeVar

import numpy as np

from moe_codesign.arrays import Mask
from moe_codesign.chips import Chip, GpuChip
from moe_codesign.compiler.tile_table import TileSpace, TileTable
from moe_codesign.cost.bound import Bound
from moe_codesign.domain.failure import Failure, FailureKind
from moe_codesign.domain.grouped_gemm import GroupedGemm
from moe_codesign.domain.grouped_gemms import GroupedGemms
from moe_codesign.domain.timing import Grade, Timing
from moe_codesign.errors import UserError
from moe_kernels.kernel import Op, Problem
from moe_kernels.tile import TileConfig
from moe_kernels.triton.formats import FORMATS

NARROW_WIDENING = 5.0
"""GPU rows whose stride is not a multiple of 16 bytes measured 1.1 to 5 times slower (aiconfigurator-core 0.12.0)."""
ABSURD = (ValueError, OverflowError, MemoryError, OSError)
"""What absurd numbers raise somewhere in a model: one question's failure, not all of them."""


@dataclass(frozen=True)
class Estimate:
    """A time, and what it is the time of.

    Args:
        timing: the time with its interval, grade and bound.
        kernel: whose kernel; None at grade ``datasheet`` and for a serving stack's.
        tiles: (GEMM 1, GEMM 2), or one tile for both; none at grade ``datasheet``.
        notes: why the time deserves less trust.
        losses_us: what each inefficiency costs, where it was asked for.
    """

    timing: Timing
    kernel: str | None
    tiles: tuple[TileConfig, ...]
    notes: tuple[str, ...] = ()
    losses_us: dict[str, float] = field(default_factory=dict)


Answer = Estimate | Failure
"""What a model says to one question."""
Need = tuple[Chip, TileSpace | None, Sequence[Op], str]
"""Tiles to compile before a question is answered: chip, tile space (None: the kernel's), ops and data type."""
Q = TypeVar("Q", contravariant=True)


class CostModel(Protocol[Q]):
    """What answers one kind of question about one chip.

    ``at_once``: how many questions it is best asked at a time.
    """

    at_once: ClassVar[int]

    def needs(self, questions: Iterable[Q]) -> Iterable[Need]:
        """What has to be compiled for these questions, so that it is compiled together and once."""

    def answer(self, questions: Sequence[Q]) -> list[Answer]:
        """An answer to each question, in their order. A question that cannot be answered fails alone."""


class NoTileError(Exception):
    """Nothing of the tile space can run this problem; the message says why."""


def attempt(ask: Callable[[], Estimate]) -> Answer:
    """The estimate, or the failure that stands for what was raised."""
    try:
        return ask()
    except (UserError, NoTileError, *ABSURD) as error:
        return failure_of(error)


def failure_of(error: Exception) -> Failure:
    """The failure that an exception stands for."""
    if isinstance(error, NoTileError):
        return Failure(FailureKind.COMPILER, str(error))
    text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    return Failure(FailureKind.UNSUPPORTED, text)


def slowest(answers: Mapping[int | None, Answer]) -> tuple[int | None, Answer]:
    """The layer that takes longest of several whose loads were recorded, and its answer, which says so.

    Args:
        answers: by layer; one answer by None is returned as it is.

    Returns:
        The first failure, if any layer has one.
    """
    times: dict[int, Estimate] = {}
    for layer, answer in answers.items():
        if layer is None or isinstance(answer, Failure):
            return layer, answer
        times[layer] = answer
    longest = max(times, key=lambda layer: times[layer].timing.latency_us)
    note = f"the recorded loads are of {len(times)} layers: layer {longest} takes longest"
    return longest, replace(times[longest], notes=(*times[longest].notes, note))


def row_of_tile(table: TileTable, problem: Problem, tile: TileConfig) -> int:
    """The table's row of a tile.

    Raises:
        NoTileError: the tile did not compile, or cannot run the problem.
    """
    row = table.index(tile)
    if row is None:
        reason = table.refused.get(tile, "it was not compiled")
        raise NoTileError(f"tile {tile.label()} of {table.op} on {table.chip.name}: {reason}")
    if misfit := table.kernel.refuses(problem, tile, table.chip.target):
        raise NoTileError(f"tile {tile.label()} of {table.op} on {table.chip.name}: {misfit}")
    return row


def narrow_loads(chip: Chip, gemms: GroupedGemms) -> Mask:
    """[gemms], whose rows are not whole pieces of 16 bytes on a GPU; see :func:`narrow_note`."""
    if not isinstance(chip, GpuChip):
        return np.zeros(len(gemms), dtype=bool)
    # Rows of operands of K elements; rows of results are of N in 16 bits.
    aligned = 128 // FORMATS[gemms.dtype].weight_bits
    narrow = gemms.k % aligned > 0
    return np.asarray((narrow | (gemms.n % 8 > 0) if aligned > 1 else narrow)[:, 0])


def narrow_note(gemms: GroupedGemms, place: int) -> str:
    """What widens the interval of such a GEMM, by :data:`NARROW_WIDENING`."""
    k, n = int(gemms.k[place, 0]), int(gemms.n[place, 0])
    return f"rows of {k} or {n} elements are not a multiple of 16 bytes: loads are narrow"


def doubt_notes(doubt: float) -> tuple[str, ...]:
    """What widens every interval on a chip whose numbers may be off by that factor."""
    if doubt == 1.0:
        return ()
    return (f"the chip's numbers are second-hand: the interval is {doubt:g} times as wide on either side",)


def timing_of(
    chip: Chip,
    bound: Bound,
    gemm: GroupedGemm,
    total: float,
    parts: dict[str, float],
    interval: tuple[float, float],
    grade: Grade,
) -> tuple[Timing, list[str]]:
    """The time of one grouped GEMM with its interval, and what widens it.

    Args:
        chip: where.
        bound: the physical bound; no end of the interval lies below it.
        gemm: what was timed.
        total: the time in us.
        parts: where it goes.
        interval: low and high over the time.
        grade: of the time.
    """
    latency = max(total, bound.us)
    low, high = interval[0] / bound.doubt, interval[1] * bound.doubt
    gemms = GroupedGemms.of([gemm])
    notes = list(doubt_notes(bound.doubt))
    if narrow_loads(chip, gemms)[0]:
        high *= NARROW_WIDENING
        notes.append(narrow_note(gemms, 0))
    timing = Timing(
        grade=grade,
        latency_us=latency,
        low_us=max(latency * low, bound.us),
        high_us=latency * high,
        bound_us=bound.us,
        limiter=max(parts, key=lambda name: parts[name]),
        parts_us=parts,
    )
    return timing, notes
