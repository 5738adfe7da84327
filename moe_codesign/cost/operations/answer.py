"""What answers for the operations of a chip, whichever way its times are known."""

from dataclasses import dataclass
from typing import Protocol

from moe_codesign.arrays import F64
from moe_codesign.cost.operations.operation import Rates, Sizes
from moe_codesign.domain.timing import Grade


@dataclass(frozen=True)
class Times:
    """Columns of answers [rows], in microseconds. ``notes``: why they deserve less trust."""

    latency_us: F64
    low_us: F64
    high_us: F64
    notes: tuple[str, ...] = ()


class OperationTimes(Protocol):
    """Times of a chip's operations.

    Attributes:
        rates: of the chip. grade: of the times. notes: why all of them deserve less trust.
    """

    @property
    def rates(self) -> Rates: ...

    @property
    def grade(self) -> Grade: ...

    @property
    def notes(self) -> tuple[str, ...]: ...

    def times(self, name: str, variant: str, sizes: Sizes) -> Times:
        """Time of each problem of an operation.

        Args:
            name: the operation.
            variant: its kind of problem.
            sizes: columns [rows].

        Raises:
            UserError: nothing is known of the operation, or the chip has no matrix units for the variant.
        """
