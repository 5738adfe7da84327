"""Every measured set: its rows by split, its calibration, and what that says of rows it has not seen."""

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import TypeVar

import numpy as np

from moe_codesign.calibrations.stacks import StackCoefficients
from moe_codesign.chips import GpuChip, load_chip
from moe_codesign.cost.stacks.conventions import Conventions
from moe_codesign.cost.stacks.model import Calibration
from moe_codesign.fitting.intervals import errors
from moe_codesign.fitting.measured import Measured, from_aiconfigurator
from moe_codesign.fitting.splits import in_test_split
from moe_codesign.fitting.stack_conventions import fit_physics
from moe_codesign.fitting.stacks import calibrate, out_of_fold_us
from moe_codesign.formats.aiconfigurator import SETS

PROCESSES = 2
Which = tuple[str, str, str]
Known = Mapping[tuple[str, str], Mapping[str, bool]]
Triple = tuple[float, float, float]
In = TypeVar("In")
Out = TypeVar("Out")


@dataclasses.dataclass(frozen=True)
class Rows:
    """A set's rows outside and inside of the test split, and the physics fitted to those outside."""

    which: Which
    fitted: Measured
    test: Measured
    physics: tuple[StackCoefficients, Conventions]


@dataclasses.dataclass(frozen=True)
class Set:
    """One (chip, stack, dtype): its rows by split, its calibration and what it says of rows it has not seen."""

    name: str
    fitted: Measured
    test: Measured
    calibration: Calibration
    fitted_us: np.ndarray
    test_us: np.ndarray
    low_us: np.ndarray
    high_us: np.ndarray
    bound_us: np.ndarray

    @property
    def test_errors(self) -> Triple:
        return errors(self.test_us, self.test.latency_us)


def each(work: Callable[[In], Out], items: Iterable[In]) -> list[Out]:
    """The work of every item, several at a time, in their order."""
    with ProcessPoolExecutor(PROCESSES) as pool:
        return list(pool.map(work, items))


def load(which: Which) -> tuple[Measured, Measured]:
    """Rows outside and inside of the test split."""
    chip, stack, dtype = which
    data = from_aiconfigurator(GpuChip.of(load_chip(chip)), stack, dtype)
    held = in_test_split(data.shape_key)
    return data.take(np.flatnonzero(~held)), data.take(np.flatnonzero(held))


def every_set() -> list[Set]:
    """All sets, each fitted on its own rows alone.

    What ranks ran of a shape is known to all sets of a stack if all that have it agree.
    """
    rows = each(_fit, SETS)
    said: dict[tuple[str, str], dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for one in rows:
        for name, holds in one.physics[1].all_choices_here.items():
            said[one.which[1], one.fitted.version][name].append(holds)
    known = {which: {name: all(holds) for name, holds in names.items()} for which, names in said.items()}
    return each(partial(_finish, known), rows)


def _fit(which: Which) -> Rows:
    fitted, test = load(which)
    return Rows(which, fitted, test, fit_physics(fitted))


def _finish(known: Known, rows: Rows) -> Set:
    _, stack, _ = rows.which
    here = known.get((stack, rows.fitted.version), {})
    found = calibrate(rows.fitted, test=rows.test, known=here, physics=rows.physics)
    said = found.predict(rows.test.chip, rows.test.columns)
    return Set(
        " ".join(rows.which), rows.fitted, rows.test, found, out_of_fold_us(found, rows.fitted), said.latency_us,
        said.low_us, said.high_us, said.bound_us,
    )  # fmt: skip
