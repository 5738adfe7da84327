from typing import Any

import pytest

from moe_codesign.domain.shape import MoEShape
from moe_codesign.errors import UserError
from moe_codesign.models import find_model

QWEN: dict[str, Any] = {"hidden_size": 2048, "moe_intermediate_size": 768, "num_experts": 128, "num_experts_per_tok": 8}


def test_counts_of_a_published_model() -> None:
    shape = find_model("Qwen3-30B-A3B")
    # 48 layers x 128 experts x 3 x 2048 x 768: the 29 of 30.5 billion parameters that are experts.
    assert shape.num_layers * shape.layer_params == pytest.approx(29.0e9, rel=0.01)
    assert shape.active_flops_per_token == 2 * 8 * 3 * 2048 * 768
    assert shape.weight_bytes("bfloat16") == 2 * shape.num_layers * shape.layer_params


def test_an_ungated_layer_has_two_projections() -> None:
    assert MoEShape(**QWEN, gated=False).expert_params == 2 * 2048 * 768


@pytest.mark.parametrize("field", ["hidden_size", "moe_intermediate_size", "num_experts", "num_experts_per_tok"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "8"])
def test_bad_sizes_are_named(field: str, value: object) -> None:
    with pytest.raises(UserError, match=field):
        MoEShape(**{**QWEN, field: value})


def test_top_k_over_the_experts_is_refused() -> None:
    with pytest.raises(UserError, match=r"num_experts_per_tok.*9.*num_experts = 8"):
        MoEShape(hidden_size=64, moe_intermediate_size=64, num_experts=8, num_experts_per_tok=9)
