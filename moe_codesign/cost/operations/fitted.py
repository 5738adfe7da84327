"""Times of operations from what was fitted to a chip under a stack: physics, the learned correction, an interval."""

import dataclasses
import functools
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from moe_codesign.arrays import F64
from moe_codesign.calibrations.catalogue import Entry, nearest
from moe_codesign.calibrations.operations import FOLDER, FORMAT, FittedVariant, OperationsFile
from moe_codesign.calibrations.trees import SymmetricTrees
from moe_codesign.chips import GpuChip
from moe_codesign.cost.operations.answer import Times
from moe_codesign.cost.operations.families import OPERATIONS
from moe_codesign.cost.operations.operation import Operation, Rates, Sizes
from moe_codesign.domain.timing import Grade
from moe_codesign.errors import UserError, first_line
from moe_codesign.tables import read_table

_SIBLING_WIDENING, _TRANSFER_WIDENING = 1.5, 3.0
"""Factors on the interval of a donor of the same architecture, and of another, as of whole fused layers."""
_OUTSIDE_WIDENING = 2.0
_UNTRIED = 1.25
"""On the interval of a kind of problem that was not measured and is answered as the one most like it."""


@dataclass(frozen=True, eq=False)
class Fitted:
    """What was fitted to one chip's operations under one stack, at work for a chip that may be another."""

    file: OperationsFile
    trees: Mapping[str, SymmetricTrees]
    rates: Rates
    widening: float = 1.0
    others: tuple["Fitted", ...] = ()
    """What was fitted to the same chip under other stacks: asked where nothing of an operation was under this one."""
    grade: ClassVar[Grade] = "modelled"

    @property
    def notes(self) -> tuple[str, ...]:
        """That the measurements are another chip's, if so."""
        if self.rates.chip == self.file.chip:
            return ()
        return (f"operations are by {self.file.chip}'s measurements, with the rates of {self.rates.chip}",)

    def times(self, name: str, variant: str, sizes: Sizes) -> Times:
        """Time of each problem of an operation.

        Args:
            name: the operation.
            variant: its kind of problem; one that was not measured is answered as the most like it.
            sizes: columns [rows].

        Raises:
            UserError: nothing of the operation was fitted, or the chip has no matrix units for the variant.
        """
        operation = OPERATIONS[name]
        fitted = self.file.operations.get(name)
        if fitted is None:
            return self._elsewhere(name, variant, sizes)
        like = variant if variant in fitted.variants else _most_like(variant, fitted.variants)
        one = fitted.variants[like]
        physics = _physics(operation, self.rates, variant, one, sizes)
        latency = physics
        if fitted.correction:
            latency = physics * np.exp(
                self.trees[name].predict(inputs(operation, self.rates, variant, one, sizes, physics))
            )
        bound = operation.bounds(self.rates, variant, sizes).us
        latency = np.maximum(latency, bound)
        outside = np.zeros(len(latency), dtype=bool)
        for column, (least, most) in one.fitted_range.items():
            outside |= (sizes[column] < least) | (sizes[column] > most)
        wide = one.interval * self.widening * np.where(outside, _OUTSIDE_WIDENING, 1.0)
        notes = []
        if like != variant:
            wide = wide * _UNTRIED
            notes.append(f"{name} in {variant} was not measured; its time is by {like}'s")
        return Times(latency, np.maximum(latency * np.exp(-wide), bound), latency * np.exp(wide), tuple(notes))

    def _elsewhere(self, name: str, variant: str, sizes: Sizes) -> Times:
        """By another stack's measurements, with a wider interval."""
        for other in self.others:
            if name in other.file.operations:
                found = dataclasses.replace(other, widening=self.widening * _SIBLING_WIDENING, others=())
                note = f"{name} was not measured under {self.file.stack}; its time is by {other.file.stack}'s"
                times = found.times(name, variant, sizes)
                return dataclasses.replace(times, notes=(note, *times.notes))
        raise UserError(f"{name} was not measured on {self.file.chip}", fix="name another chip")


def _physics(operation: Operation, rates: Rates, variant: str, one: FittedVariant, sizes: Sizes) -> F64:
    return operation.physics_us(rates, variant, operation.coefficients(**one.coefficients), sizes)


def inputs(operation: Operation, rates: Rates, variant: str, one: FittedVariant, sizes: Sizes, physics_us: F64) -> F64:
    """What the trees see [rows, inputs]: the operation's features, the variant, the physics, and it over the bound."""
    bound = operation.bounds(rates, variant, sizes).us
    columns = [
        *operation.features(rates, variant, sizes),
        np.full(len(physics_us), float(one.code)),
        np.log(physics_us),
        np.log(physics_us / np.maximum(bound, 1e-9)),
    ]
    return np.stack([np.broadcast_to(column, physics_us.shape) for column in columns], axis=1)


def _most_like(variant: str, known: Mapping[str, FittedVariant]) -> str:
    """The known variant that shares the most parts, those that come first counting more; of equals the most rows."""
    wanted = variant.split("/")

    def alike(other: str) -> tuple[tuple[bool, ...], int]:
        parts = other.split("/")
        return tuple(part == parts[place] for place, part in enumerate(wanted) if place < len(parts)), known[other].rows

    return max(known, key=alike)


def find_operations(chip: GpuChip, stack: str, *, without: str | None = None) -> Fitted:
    """What was fitted to the chip under the stack, or to the most similar chip.

    Args:
        chip: the chip.
        stack: whose software.
        without: a chip to leave out, for asking what is known without its rows.

    Raises:
        UserError: no chip was measured under the stack, or a file cannot be read.
    """
    names = {path.stem: path for path in sorted(FOLDER.glob("*.json"))}
    entries = [
        Entry(stem.rsplit("-", 1)[0], own=False, read=functools.partial(_read, stem))
        for stem in names
        if stem.rsplit("-", 1)[1] == stack and stem.rsplit("-", 1)[0] != without
    ]
    found = nearest(chip, entries)
    if found is None:
        stacks = sorted({stem.rsplit("-", 1)[1] for stem in names})
        raise UserError(f"no operation was measured under stack {stack}", fix="use one of " + ", ".join(stacks))
    file, trees = found.value
    widening = 1.0 if found.distance == 0 else _SIBLING_WIDENING if found.distance < 10 else _TRANSFER_WIDENING
    rates = Rates.of(chip)
    others = (stem for stem in names if stem.rsplit("-", 1)[0] == file.chip and stem.rsplit("-", 1)[1] != stack)
    return Fitted(file, trees, rates, widening, tuple(Fitted(*_read(stem), rates) for stem in others))


@functools.cache
def _read(stem: str) -> tuple[OperationsFile, dict[str, SymmetricTrees]]:
    path = FOLDER / f"{stem}.json"
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        if table.get("format") != FORMAT:
            raise ValueError(f"of format {table.get('format')}, this version reads {FORMAT}")
        file = read_table(OperationsFile, table, str(path))
        with np.load(path.with_suffix(".npz"), allow_pickle=False) as arrays:
            trees = {
                name: SymmetricTrees(
                    **{part: arrays[f"{name}.{part}"] for part in ("features", "borders", "leaves", "bias")}
                )
                for name, one in file.operations.items()
                if one.correction
            }
    except (OSError, ValueError, LookupError, zipfile.BadZipFile) as error:
        raise UserError(f"calibration {path}: {first_line(error)}", fix="install the package again") from None
    return file, trees
