"""What an operation of a whole model is: a family of problems, its bound, and the physics that is fitted to it.

A family answers columns of problems at once. Its coefficients are factors and short times, so that they can be carried
to another chip, whose file then gives the peak, the bandwidth, the cores and the cache.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import numpy as np

from moe_codesign.arrays import F64
from moe_codesign.chips import Chip, GpuChip
from moe_codesign.chips.link import Link
from moe_codesign.cost.bound import Bounds
from moe_codesign.errors import UserError

Sizes = Mapping[str, F64]
"""Columns of problems [rows] by name."""


@dataclass(frozen=True)
class Rates:
    """What a chip's file says that the physics of an operation reads, per microsecond.

    Args:
        chip: its name, for messages.
        flops: dense operations at peak, by data type of the operands.
        bytes: of memory at full bandwidth.
        cache_bytes_per_us: bandwidth of the L2.
        cache_bytes: size of the L2.
        cores: streaming multiprocessors or compute units.
        link: how the chip is wired to others; None where it is not.
    """

    chip: str
    flops: Mapping[str, float]
    bytes: float
    cache_bytes_per_us: float
    cache_bytes: float
    cores: float
    link: Link | None

    @classmethod
    def of(cls, chip: GpuChip) -> Self:
        """The rates of a GPU."""
        return cls(
            chip=chip.name,
            flops={dtype: 1e-6 * peak for dtype, peak in chip.peak_flops_per_s.items()},
            bytes=1e-6 * chip.memory.hbm_bytes_per_s,
            cache_bytes_per_us=1e-6 * chip.memory.l2_bytes_per_s,
            cache_bytes=chip.memory.l2_bytes,
            cores=float(chip.core.count),
            link=chip.link,
        )

    @classmethod
    def from_sheet(cls, chip: Chip) -> Self:
        """The rates of any chip, for its bounds alone: without cores and caches."""
        return cls(
            chip=chip.name,
            flops={dtype: 1e-6 * peak for dtype, peak in chip.peak_flops_per_s.items()},
            bytes=1e-6 * chip.memory.hbm_bytes_per_s,
            cache_bytes_per_us=math.nan,
            cache_bytes=math.nan,
            cores=math.nan,
            link=chip.link,
        )

    def sent_us(self, sent_bytes: F64, ranks: F64) -> F64:
        """Time that a chip's links need for bytes that it sends evenly to the other ranks [rows].

        Ranks beyond the scale-up domain are reached over the network, beside what stays within the domain.

        Raises:
            UserError: the chip has no links, or nothing is known of its network and the ranks are too many.
        """
        found = np.empty(len(ranks))
        for group in np.unique(ranks):
            rows = ranks == group
            found[rows] = sent_bytes[rows] * self._us_per_byte(int(group))
        return found

    def _us_per_byte(self, ranks: int) -> float:
        if self.link is None:
            raise UserError(f"{self.chip} has no links", value=ranks, fix="give one chip, or a chip file with a [link]")
        near = min(ranks, self.link.domain_chips)
        within = 1e6 * (near - 1) / (ranks - 1) / self.link.bytes_per_s_among(near)
        if ranks <= near:
            return within
        if self.link.scale_out_bytes_per_s is None:
            raise UserError(
                f"{self.chip} has a scale-up domain of {near} chips, and its network is not known",
                value=ranks,
                fix=f"give at most {near} ranks",
            )
        return max(within, 1e6 * (ranks - near) / (ranks - 1) / self.link.scale_out_bytes_per_s)


@dataclass(frozen=True)
class Coefficients:
    """Fitted numbers, all positive. The defaults are no more than where a fit begins."""

    least: ClassVar[Mapping[str, float]] = {}
    """Coefficients that cannot be smaller than this: a factor on a time at peak is 1 or more."""

    def logs(self) -> F64:
        return np.asarray(np.log(np.array(dataclasses.astuple(self))))

    @classmethod
    def from_logs(cls, logs: F64) -> Self:
        return cls(*np.exp(logs).tolist())

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return tuple(field.name for field in dataclasses.fields(cls))


class Operation(Protocol):
    """A family of operations.

    Attributes:
        name: what files and messages call it.
        columns: the sizes of a problem.
        variants: kinds of problem that are fitted apart, by the data types that they read.
        coefficients: the class of its fitted numbers.
    """

    @property
    def name(self) -> str: ...

    @property
    def columns(self) -> tuple[str, ...]: ...

    @property
    def variants(self) -> tuple[str, ...]: ...

    @property
    def coefficients(self) -> type[Coefficients]: ...

    def shape_key(self, sizes: Sizes) -> list[str]:
        """The shape of each problem, by which rows are held out: what a model fixes, without what a batch does."""

    def bounds(self, rates: Rates, variant: str, sizes: Sizes) -> Bounds:
        """Compute and memory time of each problem at the peaks: no kernel is faster than the longer one."""

    def physics_us(self, rates: Rates, variant: str, x: Any, sizes: Sizes) -> F64:
        """Time of each problem with these coefficients."""

    def features(self, rates: Rates, variant: str, sizes: Sizes) -> list[F64]:
        """What the learned correction sees of each problem beside its physics."""


def joined(exponent: float, *sides_us: F64) -> F64:
    """Sides that run beside each other, as a power mean: the longest, and a little more where they are alike."""
    sides = np.stack(np.broadcast_arrays(*sides_us))
    longest = sides.max(axis=0)
    return np.asarray(longest * ((sides / longest) ** exponent).sum(axis=0) ** (1 / exponent))


def waves(fill: F64) -> F64:
    """Rounds of programs that fill the cores so often: one at least, and a last one that is rarely in step."""
    whole = np.ceil(fill)
    return np.where(fill < 1, 1.0, (2 * whole + fill) / 3)


def missed(rates: Rates, kept: float, held_bytes: F64) -> F64:
    """Share of so many bytes that the L2 no longer holds when they are read again in a loop of equal runs."""
    return np.asarray(1 / (1 + (kept * rates.cache_bytes / np.maximum(held_bytes, 1.0)) ** 4))
