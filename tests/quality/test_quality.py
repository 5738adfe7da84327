import dataclasses

import pytest

from moe_codesign.domain.shape import MoEShape
from moe_codesign.models import find_model
from moe_codesign.quality import quality
from moe_codesign.quality.efficiency_leverage import forward_flops_per_token

TOKENS = 1e12


def test_the_papers_headline_leverage() -> None:
    """arXiv 2507.17702: over 7x at 3.1 % activated, granularity 12, C = 1e22."""
    shape = MoEShape(hidden_size=3072, moe_intermediate_size=512, num_experts=256, num_experts_per_tok=8, num_layers=32)
    tokens = 1e22 / forward_flops_per_token(shape)
    assert quality(shape, tokens).efficiency_leverage == pytest.approx(7.24, rel=0.01)


def test_leverage_peaks_near_granularity_twelve() -> None:
    def leverage(width: int) -> float:
        base = {"hidden_size": 4096, "num_experts": 256, "num_experts_per_tok": 8}
        shape = MoEShape(moe_intermediate_size=width, **base)
        return quality(shape, 1e22 / forward_flops_per_token(shape)).efficiency_leverage

    widths = [256, 512, 640, 704, 768, 1024, 2048, 4096]
    best = max(widths, key=leverage)
    assert 10 <= 2 * 4096 / best <= 14


def test_more_experts_at_the_same_cost_are_better() -> None:
    shape = find_model("Qwen3-30B-A3B")
    more = dataclasses.replace(shape, num_experts=256)
    assert quality(more, TOKENS).ratio(quality(shape, TOKENS)) > 1.05


def test_what_lies_outside_the_law_is_said() -> None:
    assert any("G=" in reason for reason in quality(find_model("Mixtral-8x7B"), TOKENS).outside)
    assert any("C=" in reason for reason in quality(find_model("DeepSeek-V3"), 14.8e12).outside)
