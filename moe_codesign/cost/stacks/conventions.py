"""How a measured stack was timed where its table does not say: two conventions that the times themselves show.

- For some shapes with experts on several ranks (all of SGLang 0.5.10's; in 0.5.14 those with a plain softmax router),
  tokens without an expert on the rank did not enter, and those that did ran all their choices there: aiconfigurator's
  collector puts the choices of other ranks on the rank's first expert, as no number that the kernel
  takes means "no expert". Others let all tokens enter and write zeros for other ranks' choices, as the stack does.
- For some (experts, width) the stack has a tuned file that was not published: its tile is taken to be the fastest, by
  the model, of those that such files name most.

They are found by :mod:`moe_codesign.fitting.stack_conventions`.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from moe_codesign.arrays import F64, Mask
from moe_codesign.calibrations.stacks import StackCoefficients
from moe_codesign.chips import GpuChip
from moe_codesign.cost.stacks import physics as fused_moe
from moe_codesign.cost.stacks.columns import Columns, with_others_on_first
from moe_codesign.cost.stacks.physics import Terms
from moe_codesign.cost.stacks.tiles import launched, rule_tiles
from moe_codesign.formats.tuned_files import Tuned
from moe_codesign.stacks.tiles import StackTiles

_BITS = 20
_USUAL = (
    (16, 64, 64, 1, 4, 4),
    (16, 64, 128, 1, 4, 3),
    (16, 128, 64, 1, 4, 3),
    (16, 128, 128, 1, 4, 4),
    (32, 128, 64, 1, 4, 3),
    (32, 128, 128, 1, 4, 4),
    (64, 64, 64, 1, 4, 3),
    (64, 128, 64, 16, 4, 3),
    (64, 256, 64, 16, 8, 4),
    (128, 128, 64, 16, 8, 3),
    (128, 256, 64, 16, 8, 4),
    (256, 256, 64, 16, 8, 3),
)
"""Most frequent tiles of the 16-bit files for NVIDIA chips in the wheels of vLLM 0.33.0 and SGLang 0.5.23, over all
numbers of tokens, in the order of StackTiles."""
MOST = 2 / 3
"""Share of the known shapes timed in one way from which an unknown one is taken to be, too."""


@dataclass(frozen=True)
class Conventions:
    """How one chip's measured stack was timed.

    Args:
        all_choices_here: by hidden-experts-topk, of every shape with times on several ranks, whether tokens that
            entered a rank ran all their choices there.
        tuned: experts-width of a rank, where a tuned file was used.
    """

    all_choices_here: Mapping[str, bool] = field(default_factory=dict)
    tuned: Set[str] = frozenset()

    def runs_all_choices(self, columns: Columns) -> Mask:
        """Rows whose rank ran every choice of the tokens that entered it.

        For a shape that was not measured: true if it is true of every measured shape with the same number of experts
        and top-k; if there is no such shape, true if it is true of most measured shapes.
        """
        known = self.all_choices_here
        found = np.zeros(len(columns), dtype=bool)
        if not any(known.values()):
            return found
        most = sum(known.values()) >= MOST * len(known)
        alike: dict[str, list[bool]] = {}
        for name, holds in known.items():
            alike.setdefault(name.split("-", 1)[1], []).append(holds)
        of_several = np.flatnonzero(columns.local_experts < columns.experts)
        names, place = named(*(values[of_several] for values in (columns.hidden, columns.experts, columns.top_k)))
        answers = []
        for name in names:
            kind = name.split("-", 1)[1]
            answers.append(known.get(name, all(alike[kind]) if kind in alike else most))
        found[of_several] = np.array(answers, dtype=bool)[place]
        return found

    def as_timed(self, columns: Columns) -> Columns:
        """The work that was timed for these problems."""
        rows = np.flatnonzero(self.runs_all_choices(columns))
        return columns.replaced(rows, with_others_on_first(columns.take(rows))) if len(rows) else columns

    def has_tuned(self, columns: Columns) -> Mask:
        """Rows whose tile a tuned file chose."""
        if not self.tuned:
            return np.zeros(len(columns), dtype=bool)
        names, place = named(columns.local_experts, columns.width)
        return np.array([name in self.tuned for name in names], dtype=bool)[place]


def named(*sizes: F64) -> tuple[list[str], npt.NDArray[np.int64]]:
    """Different sizes joined by dashes (hidden-experts-topk; experts-width, by which tuned files are named), and which
    each row has."""
    # One number a row: sizes are whole and below 2^20.
    keys = np.zeros(len(sizes[0]), dtype=np.int64)
    for values in sizes:
        keys = (keys << _BITS) + values.astype(np.int64)
    found, place = np.unique(keys, return_inverse=True)
    places = range(_BITS * (len(sizes) - 1), -1, -_BITS)
    return ["-".join(str(int(key) >> at & (1 << _BITS) - 1) for at in places) for key in found], place


def fastest_usual(x: StackCoefficients, columns: Columns, chip: GpuChip, dtype: str) -> StackTiles:
    """The fastest for each row among the tiles that tuned files name most."""
    every = [StackTiles(*(np.full(len(columns), float(value)) for value in tile)) for tile in _USUAL]
    times = [fused_moe.total_us(x, fused_moe.terms(columns, chip, dtype, tiles)) for tiles in every]
    return StackTiles(*np.array(_USUAL, dtype=float)[np.argmin(times, axis=0)].T)


def timed_tiles(
    x: StackCoefficients, found: Conventions, columns: Columns, chip: GpuChip, stack: str, dtype: str
) -> StackTiles:
    """The tiles that ran: the rule's, or, for rows with a tuned file, the fastest usual one by those coefficients."""
    tiles = rule_tiles(columns, stack, dtype)
    rows = np.flatnonzero(found.has_tuned(columns))
    return tiles.replaced(rows, fastest_usual(x, columns.take(rows), chip, dtype)) if len(rows) else tiles


def timed_terms(
    x: StackCoefficients,
    found: Conventions,
    columns: Columns,
    chip: GpuChip,
    stack: str,
    dtype: str,
    *,
    tuned: Tuned | None = None,
) -> tuple[Columns, Terms]:
    """The work that was timed, and its terms.

    Args:
        x: coefficients by which an unpublished tuned tile is chosen.
        found: conventions. columns, chip, stack, dtype: problems and where they run.
        tuned: the stack's tuned tiles. With them no tile is guessed: what has none runs the rule.
    """
    work = found.as_timed(columns)
    if tuned is None:
        return work, fused_moe.terms(work, chip, dtype, timed_tiles(x, found, work, chip, stack, dtype))
    run = launched(work, chip, stack, dtype, tuned)
    return work, fused_moe.terms(work, chip, dtype, run.up, run.down)
