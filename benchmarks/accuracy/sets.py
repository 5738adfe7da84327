"""Every measured set: its rows by split, its calibration, and what that says of rows it has not seen."""

import dataclasses
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import TypeVar

import numpy as np

from moe_codesign.cost.stacks.model import Calibration
from moe_codesign.fitting.intervals import errors
from moe_codesign.fitting.measured import Measured
from moe_codesign.fitting.stack_sets import FittedRows, Known, calibrate_rows, fit_rows, known_to_all
from moe_codesign.fitting.stacks import out_of_fold_us
from moe_codesign.formats.aiconfigurator import SETS

PROCESSES = 2
Triple = tuple[float, float, float]
In = TypeVar("In")
Out = TypeVar("Out")


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


def every_set() -> list[Set]:
    """All sets, each fitted on its own rows alone, as the calibrations that ship are."""
    rows = each(fit_rows, SETS)
    return each(partial(_judged, known_to_all(rows)), rows)


def _judged(known: Known, rows: FittedRows) -> Set:
    found = calibrate_rows(known, rows)
    said = found.predict(rows.test.chip, rows.test.columns)
    return Set(
        " ".join(rows.which), rows.fitted, rows.test, found, out_of_fold_us(found, rows.fitted), said.latency_us,
        said.low_us, said.high_us, said.bound_us,
    )  # fmt: skip
