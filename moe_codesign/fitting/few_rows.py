"""Fit to few measured rows: a similar chip's calibration is scaled."""

import dataclasses
import math

import numpy as np

from moe_codesign.arrays import F64
from moe_codesign.calibrations.stacks import StackCoefficients
from moe_codesign.calibrations.trees import SymmetricTrees
from moe_codesign.cost.stacks import physics as fused_moe
from moe_codesign.cost.stacks.columns import Columns
from moe_codesign.cost.stacks.conventions import Conventions
from moe_codesign.cost.stacks.model import Calibration
from moe_codesign.cost.stacks.physics import Terms
from moe_codesign.fitting.measured import Measured

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
AS_GOOD, _CLEARLY = 1.05, 0.7
"""Factors on an error up to which another is as good, and below which it is clearly better. Chosen."""


def with_conventions_of(data: Measured, start: Calibration | None) -> Calibration | None:
    """Drop the donor's list of shapes whose ranks ran every expert choice if this clearly lowers the error on the
    affected rows, after the median error of the unaffected rows has been removed."""
    if start is None or not (touched := start.conventions_on(data.chip).runs_all_choices(data.columns)).any():
        return start
    other = dataclasses.replace(start, file=start.file.model_copy(update={"all_choices_here": {}}))

    def error(one: Calibration) -> float:
        off = np.log(_physics(data, one)[0]) - np.log(data.latency_us)
        middle = 0.0 if touched.all() else float(np.median(off[~touched]))
        return float(np.abs(off[touched] - middle).mean())

    return other if error(other) < _CLEARLY * error(start) else start


_GROUPS = {
    "compute": ("matrix", "step_us", "latency_us", "near_us", "block_us"),
    "memory": ("memory", "l2", "elementwise", "zeros"),
    "fixed": ("align_ns", "launch_us", "expert_ns", "empty_ns", "zero_block_ns"),
}
"""Coefficients that few rows can tell apart only as groups."""
_GROUP_SPREAD = 0.15
"""How far a group's logarithm lies from a similar chip's, and an error from the donor's, before any row is seen.
Chosen: about what results/accuracy/README.md shows between chips of one architecture."""


def rescaled(data: Measured, start: Calibration) -> tuple[StackCoefficients, float, SymmetricTrees | None, F64]:
    """A donor's coefficients with one factor for each group, its correction as it is, and the errors left.

    Errors of few rows are widened for their number: nothing is held out.
    """
    from scipy.optimize import least_squares

    physics, work, t = _physics(data, start)
    share = start.file.correction_share if start.trees is not None else 0.0
    learned = start.correction(work, t, physics)

    def scaled(logs: F64) -> StackCoefficients:
        factors = np.exp(logs)
        changed = {
            name: getattr(start.coefficients, name) * float(factor)
            for factor, names in zip(factors, _GROUPS.values(), strict=True)
            for name in names
        }
        return dataclasses.replace(start.coefficients, **changed)

    def errors_of(logs: F64) -> F64:
        return np.asarray(np.log(fused_moe.total_us(scaled(logs), t) / data.latency_us) + learned)

    def residuals(logs: F64) -> F64:
        return np.concatenate([errors_of(logs) / _GROUP_SPREAD, logs / _GROUP_SPREAD])

    found = least_squares(residuals, np.zeros(len(_GROUPS)), loss="soft_l1")
    return scaled(found.x), share, start.trees, errors_of(found.x) * _small_sample(len(data))


def _physics(data: Measured, start: Calibration) -> tuple[F64, Columns, Terms]:
    """The donor's physics at the default rule's tiles: few rows do not say which tuned file was used."""
    return start.physics_us(data.chip, data.columns, conventions=Conventions(start.file.all_choices_here))


def _small_sample(rows: int) -> float:
    return 1.0 + 3.0 / math.sqrt(rows)
