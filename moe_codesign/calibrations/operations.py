"""The file of what was fitted to the operations of a chip under a stack.

One JSON file a chip and stack, beside it one archive of the trees of all its operations.
"""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from moe_codesign.calibrations.trees import SymmetricTrees
from moe_codesign.files import replace_file
from moe_codesign.tables import Table

FOLDER = Path(__file__).parent / "operations"
FORMAT: Literal[1] = 1


class FittedVariant(Table):
    """What was fitted to one kind of problem of an operation.

    Attributes:
        code: its number among the variants, which the trees see.
        version: of the stack, and the kernel that was timed.
        rows, shapes: that were fitted.
        left_out: rows that were not, by reason.
        coefficients: of the operation's physics, by name.
        interval: the log error that nine in ten rows of shapes in no fit do not exceed.
        fitted_range: least and most of each column.
    """

    code: int
    version: str
    kernel: str
    rows: PositiveInt
    shapes: PositiveInt
    left_out: dict[str, int] = {}
    coefficients: dict[str, PositiveFloat]
    interval: PositiveFloat
    fitted_range: dict[str, tuple[float, float]]


class HeldOut(Table):
    """Absolute relative error on shapes in no fit, in percent, and how many rows lie in the 90 % interval."""

    mape: NonNegativeFloat
    median: NonNegativeFloat
    p90: NonNegativeFloat
    physics_mape: NonNegativeFloat
    roofline_mape: NonNegativeFloat
    neighbour_mape: NonNegativeFloat | None = None
    """Of the times of the nearest fitted shape, scaled by the roofline; see moe_codesign.fitting.operations."""
    interval_coverage: NonNegativeFloat
    rows: int
    shapes: int


class FittedOperation(Table):
    """An operation of the chip under the stack. ``correction``: whether trees correct its physics."""

    variants: dict[str, FittedVariant]
    correction: bool
    held_out: dict[str, HeldOut] = {}
    """By variant."""


class OperationsFile(Table):
    """The whole file."""

    format: Literal[1] = FORMAT
    chip: str
    stack: str
    source: str
    operations: dict[str, FittedOperation] = Field(default_factory=dict)


def write_operations(folder: Path, file: OperationsFile, trees: Mapping[str, SymmetricTrees]) -> Path:
    """Write the file and its archive of trees, the archive first: a file that names trees is never without them."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{file.chip}-{file.stack}.json"
    arrays = {
        f"{name}.{part}": getattr(one, part)
        for name, one in trees.items()
        for part in ("features", "borders", "leaves", "bias")
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    replace_file(path.with_suffix(".npz"), buffer.getvalue())
    replace_file(path, (file.model_dump_json(exclude_none=True) + "\n").encode())
    return path
