"""The grouped GEMMs of a layer, and the least any chip can spend on them."""

from dataclasses import dataclass

from moe_codesign.chips import Chip, HostChip
from moe_codesign.domain.dtype import activation_bytes
from moe_codesign.domain.grouped_gemm import GroupedGemm, layer_gemms
from moe_codesign.domain.rank import RankWork


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


def layer_bound(chip: Chip, work: RankWork) -> Bound:
    """max(FLOPs / peak, bytes / bandwidth): active weights once, tokens in and out once.

    What passes between the GEMMs may stay in cache, so it is not counted.

    Raises:
        UserError: the chip has no matrix units for the dtype.
    """
    gemms = layer_gemms(work)
    activations = 2 * work.fewest_tokens * work.hidden_size * activation_bytes(work.dtype)
    total_bytes = sum(g.weight_bytes for g in gemms) + activations
    return _bound(chip, sum(g.flops for g in gemms), total_bytes, work.dtype)


def gemm_bound(chip: Chip, gemm: GroupedGemm) -> Bound:
    """The same for one grouped GEMM: weights, rows in, rows out.

    Raises:
        UserError: the chip has no matrix units for the dtype.
    """
    activations = gemm.total_rows * (gemm.k + gemm.n) * activation_bytes(gemm.dtype)
    return _bound(chip, gemm.flops, gemm.weight_bytes + activations, gemm.dtype)
