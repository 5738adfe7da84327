"""One grouped matrix product over expert-sorted rows."""

from dataclasses import dataclass

from moe_codesign.domain.dtype import DTYPE_BYTES
from moe_codesign.domain.rank import RankWork
from moe_codesign.domain.routing import Counts
from moe_kernels.kernel import Op, Problem, up_op

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
    up = up_op(gated=work.gated)
    hidden, width = work.hidden_size, work.intermediate_size
    return (
        GroupedGemm(up, work.rows, hidden, width, work.tokens, work.dtype, accumulates=False),
        GroupedGemm("down", work.rows, width, hidden, work.tokens, work.dtype, accumulates=True),
    )
