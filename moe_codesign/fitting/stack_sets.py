"""The calibrations of serving stacks that ship: every set of measured times, each fitted on its own rows.

Shapes of the test split (one in five by hash) are in no fit. What ranks ran of a shape is known to all sets of a stack
and version if all that have it agree.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from moe_codesign.calibrations.stacks import StackCoefficients
from moe_codesign.chips import GpuChip, load_chip
from moe_codesign.cost.stacks.conventions import Conventions
from moe_codesign.cost.stacks.model import Calibration
from moe_codesign.fitting.measured import Measured, from_aiconfigurator
from moe_codesign.fitting.splits import in_test_split
from moe_codesign.fitting.stack_conventions import fit_physics
from moe_codesign.fitting.stacks import calibrate

Which = tuple[str, str, str]
"""Chip, stack and data type; see :data:`moe_codesign.formats.aiconfigurator.SETS`."""
Known = Mapping[tuple[str, str], Mapping[str, bool]]
"""By stack and version, whether the ranks of a shape ran all choices."""


@dataclass(frozen=True)
class FittedRows:
    """A set's rows outside and inside of the test split, and the physics fitted to those outside."""

    which: Which
    fitted: Measured
    test: Measured
    physics: tuple[StackCoefficients, Conventions]


def load_split(which: Which) -> tuple[Measured, Measured]:
    """Rows outside and inside of the test split. Raises UserError if aiconfigurator-core is not installed."""
    chip, stack, dtype = which
    data = from_aiconfigurator(GpuChip.of(load_chip(chip)), stack, dtype)
    held = in_test_split(data.shape_key)
    return data.take(np.flatnonzero(~held)), data.take(np.flatnonzero(held))


def fit_rows(which: Which) -> FittedRows:
    """The physics of one set, alone."""
    fitted, test = load_split(which)
    return FittedRows(which, fitted, test, fit_physics(fitted))


def known_to_all(every: Iterable[FittedRows]) -> Known:
    """What the sets of a stack and version agree on."""
    said: dict[tuple[str, str], dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for rows in every:
        for name, holds in rows.physics[1].all_choices_here.items():
            said[rows.which[1], rows.fitted.version][name].append(holds)
    return {which: {name: all(holds) for name, holds in names.items()} for which, names in said.items()}


def calibrate_rows(known: Known, rows: FittedRows) -> Calibration:
    """The calibration of one set, judged on its test split."""
    here = known.get((rows.which[1], rows.fitted.version), {})
    return calibrate(rows.fitted, test=rows.test, known=here, physics=rows.physics)
