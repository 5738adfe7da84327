"""Times of operations from a data sheet alone: the roofline, as much slower as on GPUs that were measured."""

import functools
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from moe_codesign.calibrations.roofline_operations import Slowdown, shipped_slowdowns
from moe_codesign.chips import Chip
from moe_codesign.cost.operations.answer import Times
from moe_codesign.cost.operations.families import OPERATIONS
from moe_codesign.cost.operations.operation import Rates, Sizes
from moe_codesign.domain.timing import Grade


@dataclass(frozen=True)
class Roofline:
    """The operations of a chip of which nothing was measured.

    Args:
        rates: of the chip.
    """

    rates: Rates
    grade: ClassVar[Grade] = "datasheet"

    @property
    def notes(self) -> tuple[str, ...]:
        """That nothing was measured on the chip."""
        return (
            f"from the data sheet of {self.rates.chip}: operations are as far from its roofline as those of NVIDIA's "
            "GPUs are from theirs",
        )

    def times(self, name: str, variant: str, sizes: Sizes) -> Times:
        """As :meth:`moe_codesign.cost.operations.answer.OperationTimes.times`."""
        slow = _slowdowns()[name]
        bounds = OPERATIONS[name].bounds(self.rates, variant, sizes)
        latency = slowed_us(slow, bounds.compute_us, bounds.memory_us)
        wide = slow.interval
        return Times(latency, np.maximum(latency * np.exp(-wide), bounds.us), latency * np.exp(wide))


def slowed_us(slow: Slowdown, compute_us: np.ndarray, memory_us: np.ndarray) -> np.ndarray:
    """Time of problems with those bounds."""
    return np.asarray(np.maximum(slow.compute * compute_us, slow.memory * memory_us) + slow.fixed_us)


@functools.cache
def _slowdowns() -> dict[str, Slowdown]:
    return dict(shipped_slowdowns().operations)


def roofline_operations(chip: Chip) -> Roofline:
    """The operations of any chip, from its file alone."""
    return Roofline(Rates.from_sheet(chip))
