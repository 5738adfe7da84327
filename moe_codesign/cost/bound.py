"""The physical bound: the least time that a chip can spend on a layer or on a grouped GEMM."""

from dataclasses import dataclass
from typing import TypeVar

from moe_codesign.arrays import F64
from moe_codesign.chips import Chip, HostChip
from moe_codesign.domain.dtype import DTYPE_BYTES, activation_bytes
from moe_codesign.domain.grouped_gemm import GroupedGemm
from moe_codesign.domain.rank import RankWork

N = TypeVar("N", float, F64)
"""One number, or a column of them."""


@dataclass(frozen=True)
class Bound:
    """The physical bound and which side sets it."""

    compute_us: float
    memory_us: float

    @property
    def us(self) -> float:
        return max(self.compute_us, self.memory_us)

    @property
    def kind(self) -> str:
        return "compute" if self.compute_us >= self.memory_us else "memory"


def _bound(chip: Chip, flops: float, bytes_moved: float, dtype: str) -> Bound:
    # A host that runs the same batch again finds what fits in its last-level cache; no device timing here does.
    cached = chip.memory.cache_bytes if isinstance(chip, HostChip) else 0.0
    return Bound(1e6 * flops / chip.peak(dtype), 1e6 * max(bytes_moved - cached, 0.0) / chip.memory.hbm_bytes_per_s)


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
    """max(FLOPs / peak, bytes / bandwidth); see :func:`layer_flops` and :func:`layer_bytes`.

    Raises:
        UserError: the chip has no matrix units for the dtype.
    """
    hidden, width = float(work.hidden_size), float(work.intermediate_size)
    up_width = 2 * width if work.gated else width
    flops = layer_flops(rows=float(work.total_rows), hidden=hidden, up_width=up_width, width=width)
    total_bytes = layer_bytes(
        work.dtype,
        active=float((work.rows > 0).sum()),
        fewest_tokens=float(work.fewest_tokens),
        hidden=hidden,
        up_width=up_width,
        width=width,
    )
    return _bound(chip, flops, total_bytes, work.dtype)


def gemm_bound(chip: Chip, gemm: GroupedGemm) -> Bound:
    """The same for one grouped GEMM: weights, rows in, rows out.

    Raises:
        UserError: the chip has no matrix units for the dtype.
    """
    activations = gemm.total_rows * (gemm.k + gemm.n) * activation_bytes(gemm.dtype)
    return _bound(chip, gemm.flops, gemm.weight_bytes + activations, gemm.dtype)
