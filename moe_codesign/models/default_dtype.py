"""The data type that a model is timed in where the user asks for none."""

from collections.abc import Iterable
from typing import NamedTuple

from moe_codesign.chips import Chip
from moe_codesign.domain.dtype import DEFAULT_DTYPE, DTYPE_BYTES, OTHER_DTYPES
from moe_codesign.models.read_model import ReadModel
from moe_kernels.kernel import Kernel


class ChosenDtype(NamedTuple):
    """A data type that nobody asked for.

    Args:
        name: of the type.
        own: the model's own type, or None where the model names none that is known.
        why: in a few words, why ``name`` was chosen.
    """

    name: str
    own: str | None
    why: str

    @property
    def is_plain(self) -> bool:
        """Whether it is the usual type of a model of that type, so that there is nothing to explain."""
        return self.name == self.own == DEFAULT_DTYPE

    @property
    def text(self) -> str:
        """The type, and why it was chosen."""
        return f"{self.name} ({self.why})"


def default_dtype(model: ReadModel, chips: Iterable[Chip], kernels: Iterable[Kernel] = ()) -> ChosenDtype:
    """The model's own type where every chip has it, so that times on several chips compare; else the usual one.

    Args:
        model: as it was read.
        chips: that have to have the type.
        kernels: that have to take it, where they are launched.
    """
    own = model.dtype
    if own is None:
        return ChosenDtype(DEFAULT_DTYPE, own, "the model names no data type that is known here")
    if own not in DTYPE_BYTES:
        return ChosenDtype(DEFAULT_DTYPE, own, f"the model's {own} is {OTHER_DTYPES[own]}, which no kernel here has")
    if lacking := [chip.name for chip in chips if not chip.has(own)]:
        return ChosenDtype(DEFAULT_DTYPE, own, f"the model's {own} does not run on {', '.join(lacking)}")
    if lacking := [kernel.name for kernel in kernels if own not in kernel.dtypes]:
        return ChosenDtype(DEFAULT_DTYPE, own, f"{', '.join(lacking)} does not take the model's {own}")
    return ChosenDtype(own, own, "the model's")
