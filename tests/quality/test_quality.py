import dataclasses

import pytest

from moe_codesign.domain.shape import MoEShape
from moe_codesign.models import find_model
from moe_codesign.quality import LAWS, law_named
from moe_codesign.quality.efficiency_leverage import LAW, forward_flops_per_token, leverage

TOKENS = 1e12


def test_the_papers_headline_leverage() -> None:
    """arXiv 2507.17702: over 7x at 3.1 % activated, granularity 12, C = 1e22."""
    shape = MoEShape(hidden_size=3072, moe_intermediate_size=512, num_experts=256, num_experts_per_tok=8, num_layers=32)
    tokens = 1e22 / forward_flops_per_token(shape)
    assert leverage(shape, tokens) == pytest.approx(7.24, rel=0.01)


def test_leverage_peaks_near_granularity_twelve() -> None:
    def of_width(width: int) -> float:
        shape = MoEShape(hidden_size=4096, moe_intermediate_size=width, num_experts=256, num_experts_per_tok=8)
        return leverage(shape, 1e22 / forward_flops_per_token(shape))

    widths = [256, 512, 640, 704, 768, 1024, 2048, 4096]
    best = max(widths, key=of_width)
    assert 10 <= 2 * 4096 / best <= 14


def test_more_experts_at_the_same_cost_are_better() -> None:
    shape = find_model("Qwen3-30B-A3B")
    more = dataclasses.replace(shape, num_experts=256)
    assert LAW.quality(more, TOKENS).ratio(LAW.quality(shape, TOKENS)) > 1.05


def test_what_lies_outside_the_law_is_said() -> None:
    assert any("G=" in reason for reason in LAW.quality(find_model("Mixtral-8x7B"), TOKENS).outside)
    assert any("C=" in reason for reason in LAW.quality(find_model("DeepSeek-V3"), 14.8e12).outside)


@pytest.mark.parametrize("name", LAWS)
def test_every_law_compares_shapes(name: str) -> None:
    law, shape = law_named(name), find_model("Qwen3-30B-A3B")
    own = law.quality(shape, TOKENS)
    assert law.measure
    assert own.ratio(own) == 1.0
