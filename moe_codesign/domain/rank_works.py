"""The shares of many layers that one chip does of each, as columns."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moe_codesign.arrays import F64
from moe_codesign.domain.grouped_gemms import GroupedGemms
from moe_codesign.domain.rank import RankWork
from moe_codesign.domain.token_counts import Counts
from moe_kernels.kernel import up_op


@dataclass(frozen=True, eq=False)
class RankWorks:
    """Shares of layers of one data type, all gated or none; see :class:`moe_codesign.domain.rank.RankWork`.

    Args:
        rows: int64, token rows of each expert, layer after layer.
        experts: int64 [layers], how many experts each has here, 1 or more.
        tokens, fewest_tokens, hidden_size, intermediate_size: [layers].
        gated, dtype: of all of them.
    """

    rows: Counts
    experts: Counts
    tokens: F64
    fewest_tokens: F64
    hidden_size: F64
    intermediate_size: F64
    gated: bool
    dtype: str

    @classmethod
    def of(cls, works: Sequence[RankWork]) -> "RankWorks":
        """Columns of shares that are alike in data type and gate."""
        return cls(
            rows=np.concatenate([work.rows for work in works]),
            experts=np.array([len(work.rows) for work in works]),
            tokens=np.array([work.tokens for work in works], dtype=np.float64),
            fewest_tokens=np.array([work.fewest_tokens for work in works], dtype=np.float64),
            hidden_size=np.array([work.hidden_size for work in works], dtype=np.float64),
            intermediate_size=np.array([work.intermediate_size for work in works], dtype=np.float64),
            gated=works[0].gated,
            dtype=works[0].dtype,
        )

    def __len__(self) -> int:
        return len(self.experts)

    def gemms(self) -> tuple[GroupedGemms, GroupedGemms]:
        """GEMM 1 and GEMM 2 of each, as :func:`moe_codesign.domain.grouped_gemm.layer_gemms` has them."""
        hidden, width, tokens = self.hidden_size[:, None], self.intermediate_size[:, None], self.tokens[:, None]
        up = up_op(gated=self.gated)
        return (
            GroupedGemms(up, self.dtype, False, self.rows, self.experts, hidden, width, tokens),
            GroupedGemms("down", self.dtype, True, self.rows, self.experts, width, hidden, tokens),
        )
