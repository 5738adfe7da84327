"""The physical bound: the least time that a chip can spend on a layer or on a grouped GEMM."""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from moe_codesign.arrays import F64
from moe_codesign.chips import Chip, HostChip
from moe_codesign.domain.dtype import DTYPE_BYTES, activation_bytes
from moe_codesign.domain.grouped_gemm import GroupedGemm
from moe_codesign.domain.grouped_gemms import GroupedGemms
from moe_codesign.domain.rank import RankWork
from moe_codesign.domain.rank_works import RankWorks

N = TypeVar("N", float, F64)
"""One number, or a column of them."""


@dataclass(frozen=True)
class Bound:
    """The physical bound and which side sets it.

    Args:
        compute_us, memory_us: by the numbers of the chip's file.
        doubt: by what factor these may be off; see :attr:`moe_codesign.chips.schema._Chip.doubt`.
    """

    compute_us: float
    memory_us: float
    doubt: float = 1.0

    @property
    def us(self) -> float:
        """What no time is below, the chip being as much better than its file says as it may be."""
        return max(self.compute_us, self.memory_us) / self.doubt

    @property
    def kind(self) -> str:
        return "compute" if self.compute_us >= self.memory_us else "memory"


@dataclass(frozen=True, eq=False)
class Bounds:
    """Bounds of many problems on one chip [problems]; see :class:`Bound`."""

    compute_us: F64
    memory_us: F64
    doubt: float = 1.0

    @property
    def us(self) -> F64:
        return self.stated_us / self.doubt

    @property
    def stated_us(self) -> F64:
        """The roofline by the numbers of the chip's file, which a chip may beat whose numbers are in doubt."""
        return np.maximum(self.compute_us, self.memory_us)

    def of(self, place: int) -> Bound:
        """One of them."""
        return Bound(float(self.compute_us[place]), float(self.memory_us[place]), self.doubt)


def _bounds(chip: Chip, flops: F64, bytes_moved: F64, dtype: str) -> Bounds:
    # A host that runs the same batch again finds what fits in its last-level cache; no device timing here does.
    cached = chip.memory.cache_bytes if isinstance(chip, HostChip) else 0.0
    moved = np.maximum(bytes_moved - cached, 0.0)
    return Bounds(1e6 * flops / chip.peak(dtype), 1e6 * moved / chip.memory.hbm_bytes_per_s, chip.doubt)


def layer_flops(*, rows: N, hidden: N, up_width: N, width: N) -> N:
    """FLOPs of both GEMMs of a rank: ``up_width`` columns of GEMM 1, ``width`` after the gate."""
    return 2 * rows * hidden * (up_width + width)


def layer_bytes(dtype: str, *, active: N, fewest_tokens: N, hidden: N, up_width: N, width: N) -> N:
    """Bytes that a rank cannot avoid: weights of the experts that have rows once, tokens in and out once.

    What passes between the GEMMs may stay in cache, so it is not counted.
    """
    weights = active * hidden * (up_width + width) * DTYPE_BYTES[dtype]
    return weights + 2 * fewest_tokens * hidden * activation_bytes(dtype)


def layer_bound(chip: Chip, work: RankWork) -> Bound:
    """max(FLOPs / peak, bytes / bandwidth); see :func:`layer_bounds`."""
    return layer_bounds(chip, RankWorks.of([work])).of(0)


def layer_bounds(chip: Chip, works: RankWorks) -> Bounds:
    """max(FLOPs / peak, bytes / bandwidth) of each layer; see :func:`layer_flops` and :func:`layer_bytes`.

    Raises:
        UserError: the chip has no matrix units for the dtype.
    """
    up, _ = works.gemms()
    hidden, width = works.hidden_size, works.intermediate_size
    up_width = up.matrices * width
    flops = layer_flops(rows=up.total_rows[:, 0], hidden=hidden, up_width=up_width, width=width)
    total_bytes = layer_bytes(
        works.dtype,
        active=up.active_groups[:, 0],
        fewest_tokens=works.fewest_tokens,
        hidden=hidden,
        up_width=up_width,
        width=width,
    )
    return _bounds(chip, flops, total_bytes, works.dtype)


def gemm_bound(chip: Chip, gemm: GroupedGemm) -> Bound:
    """The same for one grouped GEMM; see :func:`gemm_bounds`."""
    return gemm_bounds(chip, GroupedGemms.of([gemm])).of(0)


def gemm_bounds(chip: Chip, gemms: GroupedGemms) -> Bounds:
    """The same for grouped GEMMs by themselves: weights, rows in, rows out.

    Raises:
        UserError: the chip has no matrix units for the dtype.
    """
    activations = gemms.total_rows * (gemms.k + gemms.n) * activation_bytes(gemms.dtype)
    flops = 2.0 * gemms.total_rows * gemms.k * gemms.n * gemms.matrices
    return _bounds(chip, flops[:, 0], (gemms.weight_bytes + activations)[:, 0], gemms.dtype)
