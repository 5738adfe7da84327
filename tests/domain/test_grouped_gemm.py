"""A grouped GEMM that cannot be is not built."""

import numpy as np
import pytest

from moe_codesign.domain.grouped_gemm import GroupedGemm
from moe_codesign.errors import UserError


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("op", "sideways", "op: got 'sideways'"),
        ("dtype", "fp3", "dtype: got 'fp3'"),
        ("k", 0, "k, n and groups"),
        ("n", -1, "k, n and groups"),
        ("rows", np.array([], dtype=np.int64), "k, n and groups"),
    ],
)
def test_what_means_nothing_cannot_be_built(field: str, value: object, said: str) -> None:
    good = {"op": "down", "rows": np.array([3]), "k": 8, "n": 8, "tokens": 3, "dtype": "bfloat16"}
    assert GroupedGemm(**good, accumulates=False).total_rows == 3  # type: ignore[arg-type]
    with pytest.raises(UserError, match=said):
        GroupedGemm(**{**good, field: value}, accumulates=False)  # type: ignore[arg-type]
