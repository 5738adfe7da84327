"""The data type that a model is timed in where the user asks for none."""

from collections.abc import Iterable
from typing import NamedTuple

from moe_codesign.chips import Chip
from moe_codesign.domain.dtype import DEFAULT_DTYPE, DTYPE_BYTES, OTHER_DTYPES
from moe_codesign.models.read_model import ReadModel


class ChosenDtype(NamedTuple):
    """A data type and, in a few words, why it was chosen."""

    name: str
    why: str


def default_dtype(model: ReadModel, chips: Iterable[Chip]) -> ChosenDtype:
    """The model's own type where every chip has it, so that times on several chips compare; else the usual one."""
    own = model.dtype
    if own is None:
        return ChosenDtype(DEFAULT_DTYPE, "the model names no data type that is known here")
    if own not in DTYPE_BYTES:
        return ChosenDtype(DEFAULT_DTYPE, f"the model's {own} is {OTHER_DTYPES[own]}, which no kernel here has")
    if lacking := [chip.name for chip in chips if not chip.has(own)]:
        return ChosenDtype(DEFAULT_DTYPE, f"the model's {own} does not run on {', '.join(lacking)}")
    return ChosenDtype(own, "the model's")
