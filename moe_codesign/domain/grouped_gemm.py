"""One grouped matrix product over expert-sorted rows."""

from dataclasses import dataclass
from typing import get_args

from moe_codesign.domain.dtype import DTYPE_BYTES
from moe_codesign.domain.rank import RankWork
from moe_codesign.domain.token_counts import Counts
from moe_codesign.errors import UserError
from moe_kernels.kernel import Op, Problem, up_op


@dataclass(frozen=True)
class GroupedGemm:
    """Rows sorted by group, each group multiplied with its own [k, n] matrix (with two of them for ``gate_up``).

    Args:
        op: ``gate_up`` or ``up`` (GEMM 1 of a layer, with and without a gate) or ``down`` (GEMM 2, or one by itself).
        rows: int64 [groups], rows of each group.
        k: depth of the product.
        n: columns of one matrix.
        tokens: distinct input rows, or distinct output rows of ``down``.
        dtype: data type of the weights.
        accumulates: results are added into ``tokens`` rows instead of being written once for each row.

    Raises:
        UserError: an unknown op or dtype, or a size below 1.
    """

    op: Op
    rows: Counts
    k: int
    n: int
    tokens: int
    dtype: str
    accumulates: bool

    def __post_init__(self) -> None:
        if self.op not in get_args(Op):
            raise UserError("op", value=self.op, fix="use one of " + ", ".join(get_args(Op)))
        if self.dtype not in DTYPE_BYTES:
            raise UserError("dtype", value=self.dtype, fix="use one of " + ", ".join(DTYPE_BYTES))
        if min(self.k, self.n, len(self.rows)) < 1:
            sizes = (self.k, self.n, len(self.rows))
            raise UserError("k, n and groups", value=sizes, fix="give whole numbers of at least 1")

    @property
    def matrices(self) -> int:
        """Weight matrices of a group."""
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
