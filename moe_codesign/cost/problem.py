"""The grouped GEMMs of a layer, and the least any chip can spend on them."""

from dataclasses import dataclass

from moe_codesign.chips import Chip
from moe_codesign.errors import UserError
from moe_codesign.routing import Counts
from moe_codesign.shape import DTYPE_BYTES, activation_bytes
from moe_codesign.workload import RankWork
from moe_kernels.kernel import Op, Problem

Range = tuple[float, float]


@dataclass(frozen=True)
class GroupedGemm:
    """``rows`` [groups] times [k, n] each (two of them for ``gate_up``); ``tokens`` distinct input or output rows.

    ``accumulates``: results are added into ``tokens`` rows instead of being written once per row.
    """

    op: Op
    rows: Counts
    k: int
    n: int
    tokens: int
    dtype: str
    accumulates: bool

    @property
    def matrices(self) -> int:
        return 2 if self.op == "gate_up" else 1

    @property
    def problem(self) -> Problem:
        """What a kernel is asked whether it supports."""
        return Problem(op=self.op, dtype=self.dtype, k=self.k, n=self.n)

    @property
    def total_rows(self) -> int:
        return int(self.rows.sum())

    @property
    def active_groups(self) -> int:
        return int((self.rows > 0).sum())

    @property
    def flops(self) -> float:
        return 2.0 * self.total_rows * self.k * self.n * self.matrices

    @property
    def weight_bytes(self) -> float:
        """Bytes of the weights that have rows, read once."""
        return self.active_groups * self.k * self.n * self.matrices * DTYPE_BYTES[self.dtype]


def layer_gemms(work: RankWork) -> tuple[GroupedGemm, GroupedGemm]:
    """GEMM 1 and GEMM 2 of one rank's share of a layer."""
    up: Op = "gate_up" if work.gated else "up"
    hidden, width = work.hidden_size, work.intermediate_size
    return (
        GroupedGemm(up, work.rows, hidden, width, work.tokens, work.dtype, accumulates=False),
        GroupedGemm("down", work.rows, width, hidden, work.tokens, work.dtype, accumulates=True),
    )


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
    peak = chip.peak(dtype)
    if peak is None:
        raise UserError(
            f"{chip.name} has no {dtype} matrix units", mend="use one of " + ", ".join(chip.peak_flops_per_s)
        )
    # A host that runs the same batch again finds what fits in its last-level cache; no device timing here does.
    cached = (chip.memory.l2_bytes or 0.0) if chip.is_host else 0.0
    return Bound(1e6 * flops / peak, 1e6 * max(bytes_moved - cached, 0.0) / chip.memory.hbm_bytes_per_s)


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
