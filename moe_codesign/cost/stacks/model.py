"""What measured times say of a chip under a software stack: coefficients, a learned correction, an interval.

One TOML file per (chip, stack, dtype), beside it the arrays of the correction's trees. Files that
a user's `moe-codesign calibrate` wrote come before those that the project ships.
"""

import functools
import itertools
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from moe_codesign.arrays import F64, Mask
from moe_codesign.calibrations.catalogue import distance
from moe_codesign.calibrations.stacks import StackCoefficients, StackFile
from moe_codesign.calibrations.trees import SymmetricTrees
from moe_codesign.chips import Chip, GpuChip, load_chip
from moe_codesign.cost.estimate import doubt_notes
from moe_codesign.cost.stacks import physics as fused_moe
from moe_codesign.cost.stacks.columns import Columns
from moe_codesign.cost.stacks.conventions import Conventions, timed_terms
from moe_codesign.cost.stacks.features import features
from moe_codesign.cost.stacks.physics import Terms
from moe_codesign.cost.stacks.tiles import launched
from moe_codesign.formats.tuned_files import Tuned
from moe_codesign.stacks.tiles import StackTiles

_SIBLING_WIDENING, _TRANSFER_WIDENING = 1.5, 3.0
"""Factors on the interval of a near donor of the same architecture, and of another: results/accuracy/README.md has what
they hold of chips whose rows are withheld."""
_NEAR = 0.5
"""Distance of a donor, up to which the lesser factor serves: withheld chips of one architecture are 0.36 apart at most
(:func:`moe_codesign.calibrations.catalogue.distance`), an H20 is 2.7 from its donor."""
OUTSIDE_WIDENING = 2.0
"""On the logarithm of the interval of a problem outside of the range of the fit. Chosen: there are no rows to ask."""
TOKEN_BUCKETS = (128, 1024)
"""Intervals differ below, between and above: decode is bound by memory, prefill by compute."""
_CHUNK = 32768
"""Rows that a thread answers at a time: with fewer, threads wait for the interpreter between NumPy's calls."""


@dataclass(frozen=True)
class Prediction:
    """Columns of answers.

    ``parts_us``: where the time goes; ``note``: why it deserves less trust, if so; ``tiles``: what the stack launches;
    ``refused``: why that cannot be launched, by row.
    """

    latency_us: F64
    low_us: F64
    high_us: F64
    bound_us: F64
    limiter: list[str]
    parts_us: dict[str, F64]
    note: list[str]
    tiles: StackTiles
    refused: Mapping[int, str]

    @classmethod
    def joined(cls, parts: Sequence["Prediction"]) -> "Prediction":
        """One after the other."""

        def join(name: str) -> F64:
            return np.concatenate([getattr(part, name) for part in parts])

        return cls(
            **{name: join(name) for name in ("latency_us", "low_us", "high_us", "bound_us")},
            limiter=list(itertools.chain.from_iterable(part.limiter for part in parts)),
            parts_us={name: np.concatenate([part.parts_us[name] for part in parts]) for name in parts[0].parts_us},
            note=list(itertools.chain.from_iterable(part.note for part in parts)),
            tiles=StackTiles.joined([part.tiles for part in parts]),
            refused={
                row + sum(len(before.note) for before in parts[:place]): reason
                for place, part in enumerate(parts)
                for row, reason in part.refused.items()
            },
        )


@dataclass(frozen=True)
class Calibration:
    """What measured times of a stack on one chip say: coefficients, and the correction's trees if they help.

    It serves other chips too: each method is asked about a chip, and widens its interval, with a note, where the
    measurements are not that chip's own.
    """

    file: StackFile
    trees: SymmetricTrees | None = None

    @functools.cached_property
    def coefficients(self) -> StackCoefficients:
        return StackCoefficients(**self.file.coefficients)

    def is_of(self, chip: Chip) -> bool:
        """Whether the measurements are that chip's own."""
        return self.file.chip == chip.name

    def conventions_on(self, chip: Chip) -> Conventions:
        """How the stack runs there. Tuned files are a chip's own, so they are not carried to another."""
        return Conventions(self.file.all_choices_here, frozenset(self.file.tuned if self.is_of(chip) else ()))

    def physics_us(
        self,
        chip: GpuChip,
        columns: Columns,
        tuned: Tuned | None = None,
        conventions: Conventions | None = None,
    ) -> tuple[F64, Columns, Terms]:
        """Time without the correction, the work that it is the time of, and its terms.

        Args:
            chip: where.
            columns: the problems.
            tuned: the stack's tuned tiles; see :func:`moe_codesign.formats.tuned_files.tuned_tiles`.
            conventions: how the stack ran, if not as :meth:`conventions_on` says.
        """
        x, file = self.coefficients, self.file
        conventions = conventions or self.conventions_on(chip)
        work, t = timed_terms(x, conventions, columns, chip, file.stack, file.dtype, tuned=tuned)
        return fused_moe.total_us(x, t), work, t

    def correction(self, work: Columns, t: Terms, physics_us: F64) -> F64:
        """Logarithm of what the physics of that work is to be multiplied with."""
        if self.trees is None or self.file.correction_share == 0:
            return np.zeros(len(work))
        return self.file.correction_share * self.trees.predict(features(work, t, physics_us))

    def predict(self, chip: GpuChip, columns: Columns, tuned: Tuned | None = None) -> Prediction:
        """Time of every problem with its 90 % interval; never below the physical bound."""
        parts = [columns.take(slice(first, first + _CHUNK)) for first in range(0, max(len(columns), 1), _CHUNK)]
        if len(parts) == 1:
            return self._predict(chip, columns, tuned)
        # NumPy leaves the interpreter to other threads while it counts.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return Prediction.joined(list(pool.map(lambda part: self._predict(chip, part, tuned), parts)))

    def _predict(self, chip: GpuChip, columns: Columns, tuned: Tuned | None) -> Prediction:
        physics, work, t = self.physics_us(chip, columns, tuned)
        bound = fused_moe.bound_us(columns, chip, self.file.dtype)
        latency = np.maximum(physics * np.exp(self.correction(work, t, physics)), bound)
        outside = self._outside(columns)
        parts = fused_moe.parts_us(self.coefficients, t)
        width = np.array(self.file.interval)[np.searchsorted(TOKEN_BUCKETS, columns.num_tokens)]
        width = width * np.where(np.any(list(outside.values()), axis=0), OUTSIDE_WIDENING, 1.0)
        if not self.is_of(chip):
            near = distance(GpuChip.of(load_chip(self.file.chip)), chip) < _NEAR
            width = width * (_SIBLING_WIDENING if near else _TRANSFER_WIDENING)
        run = launched(columns, chip, self.file.stack, self.file.dtype, tuned)
        notes = self._notes(columns, outside, chip, tuned)
        for row, note in run.notes.items():
            notes[row] = "; ".join(filter(None, (notes[row], note)))
        return Prediction(
            latency_us=latency,
            low_us=np.maximum(latency * np.exp(-width) / chip.doubt, bound),
            high_us=latency * np.exp(width) * chip.doubt,
            bound_us=bound,
            limiter=fused_moe.limiters(self.coefficients, t, parts),
            # The correction is of the whole: each part bears its share.
            parts_us={name: values * latency / physics for name, values in parts.items()},
            note=notes,
            tiles=run.up,
            refused=run.refused,
        )

    def _notes(self, columns: Columns, outside: dict[str, Mask], chip: GpuChip, tuned: Tuned | None) -> list[str]:
        found = self.conventions_on(chip)
        always = [] if self.is_of(chip) else [f"coefficients of {self.file.chip}, which has measurements"]
        always += doubt_notes(chip.doubt)
        if chip.vendor != "nvidia":
            always.append("tiles by the stack's default rule for CUDA")
        unpublished = found.has_tuned(columns) if tuned is None else np.zeros(len(columns), dtype=bool)
        flags = np.stack([unpublished, found.runs_all_choices(columns), *outside.values()])
        # Read as bits they number the kind of a row.
        kind = (1 << np.arange(len(flags))) @ flags
        kinds = np.flatnonzero(np.bincount(kind))
        texts = {}
        for number in kinds.tolist():
            is_unpublished, all_here, *beyond = (number >> bit & 1 for bit in range(len(flags)))
            notes = list(always)
            if is_unpublished:
                notes.append(
                    "this shape was measured with an unpublished tuned configuration; pass --tuned to use your own"
                )
            if all_here:
                notes.append("measured with every expert choice of the rank's tokens run on that rank")
            if names := [name for name, is_beyond in zip(outside, beyond, strict=True) if is_beyond]:
                notes.append("outside the measured range: " + ", ".join(names))
            texts[number] = "; ".join(notes)
        return [texts[number] for number in kind.tolist()]

    def _outside(self, columns: Columns) -> dict[str, Mask]:
        """By field, problems outside of the fitted range."""
        return {
            name: (getattr(columns, name) < low) | (getattr(columns, name) > high)
            for name, (low, high) in self.file.fitted_range.items()
        }
