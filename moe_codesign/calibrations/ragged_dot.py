"""Coefficients of public ragged_dot kernels, on GPUs and on TPUs, and their intervals: ragged_dot.toml."""

import functools
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Generic, Self, TypeVar

from moe_codesign.calibrations.catalogue import UNKNOWN_INTERVAL, Entry, Found, nearest
from moe_codesign.chips import CompiledChip, GpuChip, TpuChip

FITTED = Path(__file__).parent / "ragged_dot.toml"


@dataclass(frozen=True)
class Fitted:
    """Numbers that are fitted, in the order of their fields."""

    @classmethod
    def from_array(cls, values: Sequence[float]) -> Self:
        """The numbers from values in the order of the fields."""
        return cls(*(float(value) for value in values))

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Names of the fields, in their order."""
        return tuple(field.name for field in fields(cls))


@dataclass(frozen=True)
class RaggedDotGpuCoefficients(Fitted):
    """What is fitted for a GPU.

    Args:
        matrix_efficiency: share of the peak in a full loop.
        rows_kept: share of the L2 that keeps rows from one column of tiles to the next (over 1: columns run close
            together).
        walk_us_per_group: one step of the walk over the groups' sizes.
    """

    matrix_efficiency: float
    rows_kept: float
    walk_us_per_group: float


@dataclass(frozen=True)
class RaggedDotTpuCoefficients(Fitted):
    """What is fitted for a TPU.

    Args:
        matrix_efficiency: share of the peak in a step.
        step_us: time of a step in which the matrix units do not work.
        hbm_efficiency: share of the peak bandwidth (over 1: rows or results that stayed in VMEM were counted).
    """

    matrix_efficiency: float
    step_us: float
    hbm_efficiency: float


C = TypeVar("C", bound=Fitted)


@dataclass(frozen=True)
class RaggedDotFit(Generic[C]):
    """Coefficients, and low and high over the estimate on shapes that the fit had not seen."""

    coefficients: C
    low: float
    high: float


def of_gpu(chip: GpuChip) -> Found[RaggedDotFit[RaggedDotGpuCoefficients]]:
    """The chip's own fit, or that of the most similar GPU."""
    return _find(chip, RaggedDotGpuCoefficients)


def of_tpu(chip: TpuChip) -> Found[RaggedDotFit[RaggedDotTpuCoefficients]]:
    """The chip's own fit, or that of the most similar TPU."""
    return _find(chip, RaggedDotTpuCoefficients)


def interval_and_warning(chip: CompiledChip, found: Found[RaggedDotFit[C]]) -> tuple[tuple[float, float], str]:
    """Low and high over the estimate, and why they are wide where the fit is another chip's."""
    if found.chip == chip.name:
        return (found.value.low, found.value.high), ""
    return UNKNOWN_INTERVAL, f"coefficients of {found.chip}: no ragged_dot kernel was measured on {chip.name}"


def _find(chip: CompiledChip, kind: type[C]) -> Found[RaggedDotFit[C]]:
    entries = [
        Entry(name, own=False, read=functools.partial(_fit, kind, tuple(numbers.items())))
        for name, numbers in _fitted().items()
        if set(kind.names()) <= numbers.keys()
    ]
    found = nearest(chip, entries)
    if found is None:
        raise LookupError(f"{FITTED.name} holds no {chip.kind}")
    return found


def _fit(kind: type[C], numbers: tuple[tuple[str, float], ...]) -> RaggedDotFit[C]:
    of = dict(numbers)
    return RaggedDotFit(kind.from_array([of[name] for name in kind.names()]), of["low"], of["high"])


@functools.cache
def _fitted() -> dict[str, dict[str, float]]:
    return {
        name: table
        for name, table in tomllib.loads(FITTED.read_text(encoding="utf-8")).items()
        if isinstance(table, dict)
    }
