"""Many grouped matrix products as columns: what a cost model prices at once."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from moe_codesign.arrays import F64
from moe_codesign.domain.dtype import DTYPE_BYTES
from moe_codesign.domain.grouped_gemm import GroupedGemm
from moe_codesign.domain.token_counts import Counts
from moe_kernels.kernel import Op, Problem


@dataclass(frozen=True, eq=False)
class GroupedGemms:
    """Grouped GEMMs of one op and data type; see :class:`moe_codesign.domain.grouped_gemm.GroupedGemm`.

    A number of each GEMM is a column [gemms, 1], so that with a row of tiles it makes [gemms, tiles].

    Args:
        op, dtype, accumulates: of all of them.
        rows: int64, rows of each group, GEMM after GEMM.
        groups: int64 [gemms], how many groups each has, 1 or more.
        k, n, tokens: [gemms, 1].
    """

    op: Op
    dtype: str
    accumulates: bool
    rows: Counts
    groups: Counts
    k: F64
    n: F64
    tokens: F64

    @classmethod
    def of(cls, gemms: Sequence[GroupedGemm]) -> "GroupedGemms":
        """Columns of GEMMs that are alike in op, data type and whether they accumulate."""
        first = gemms[0]
        return cls(
            op=first.op,
            dtype=first.dtype,
            accumulates=first.accumulates,
            rows=np.concatenate([gemm.rows for gemm in gemms]),
            groups=np.array([len(gemm.rows) for gemm in gemms]),
            k=_column([gemm.k for gemm in gemms]),
            n=_column([gemm.n for gemm in gemms]),
            tokens=_column([gemm.tokens for gemm in gemms]),
        )

    def __len__(self) -> int:
        return len(self.groups)

    def part(self, start: int, stop: int) -> "GroupedGemms":
        """The GEMMs of these places."""
        ends = np.append(self.starts, len(self.rows))
        return replace(
            self,
            rows=self.rows[ends[start] : ends[min(stop, len(self))]],
            groups=self.groups[start:stop],
            k=self.k[start:stop],
            n=self.n[start:stop],
            tokens=self.tokens[start:stop],
        )

    def problem(self, place: int) -> Problem:
        """What a kernel is asked whether it supports."""
        return Problem(op=self.op, dtype=self.dtype, k=int(self.k[place, 0]), n=int(self.n[place, 0]))

    @functools.cached_property
    def starts(self) -> Counts:
        """int64 [gemms], where the rows of each begin."""
        return np.cumsum(self.groups) - self.groups

    @property
    def matrices(self) -> int:
        """Weight matrices of a group."""
        return 2 if self.op == "gate_up" else 1

    @functools.cached_property
    def total_rows(self) -> F64:
        """[gemms, 1]."""
        return self._summed(self.rows)

    @functools.cached_property
    def active_groups(self) -> F64:
        """[gemms, 1], groups that have rows."""
        return self._summed(self.rows > 0)

    @property
    def mean_rows(self) -> F64:
        """[gemms, 1], rows of a group that has any."""
        return self.total_rows / np.maximum(self.active_groups, 1.0)

    @property
    def weight_bytes(self) -> F64:
        """[gemms, 1], bytes of the weights that have rows, read once."""
        return self.active_groups * self.k * self.n * self.matrices * DTYPE_BYTES[self.dtype]

    def row_tiles(self, block_m: F64) -> F64:
        """Tiles of ``block_m`` rows: [gemms, tiles] of as many sizes, [gemms, 1] of one size for each GEMM."""
        if block_m.ndim == 2:
            return self._summed(np.ceil(self.rows / np.repeat(block_m[:, 0], self.groups)))
        sizes, which = np.unique(block_m, return_inverse=True)
        counts = np.concatenate([self._summed(np.ceil(self.rows / size)) for size in sizes], axis=1)
        return counts.take(which, axis=1)

    def _summed(self, of_groups: np.ndarray) -> F64:
        return np.add.reduceat(of_groups, self.starts, dtype=np.float64)[:, None]


def _column(numbers: Sequence[int]) -> F64:
    return np.array(numbers, dtype=np.float64)[:, None]
