"""The same problem asked of `predict`, `audit` and a search is the same problem, and has the same answer."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import moe_codesign as mc
from moe_codesign.chips import load_chip
from moe_codesign.compiler.tile_table import Tables
from moe_codesign.domain.routing import DEFAULT_ROUTING_TEXT
from moe_codesign.domain.shape import MoEShape
from moe_codesign.domain.trial import Answered
from moe_codesign.models import find_model
from moe_codesign.study.evaluate import Evaluator
from moe_codesign.study.space import parse_space
from tests.conftest import space_text


def predicted(shape: MoEShape, chip: str, **problem: Any) -> dict[str, Any]:
    names = ("hidden_size", "moe_intermediate_size", "num_experts", "num_experts_per_tok", "n_shared_experts", "gated")
    (row,) = mc.predict([{"chip": chip, **problem, **{name: getattr(shape, name) for name in names}}])
    return row


def searched(shape: MoEShape, chip: str, tokens: int, ep: int, seed: int = 0) -> float:
    text = space_text(chips=[chip], min_quality_ratio=None).replace("num_tokens = 64", f"num_tokens = {tokens}")
    text = text.replace("[shape]", f"seed = {seed}\n[shape]") if seed else text
    space = parse_space(text.replace("ep = 4", f"ep = {ep}"))
    evaluator = Evaluator(space, load_chip(chip), find_model(space.reference), Tables(), None)
    outcome = evaluator.evaluate(shape, None, seed=0)
    assert isinstance(outcome, Answered), outcome
    return outcome.pairs[0].timing.latency_us


def test_a_row_without_routing_is_answered_as_audit_does() -> None:
    """It was 937 us here and 579 us there."""
    shape = find_model("Qwen3-30B-A3B")
    row = predicted(shape, "trainium2", num_tokens=16)
    (audited,) = mc.audit(shape, ["trainium2"], tokens=[16])
    assert audited.estimate is not None
    assert row["latency_us"] == pytest.approx(audited.estimate.timing.latency_us, abs=1e-4)
    assert row["routing"] == "uniform"


@settings(deadline=None, max_examples=30)
@given(
    width=st.integers(1, 32).map(lambda n: 128 * n),
    experts=st.sampled_from([8, 64, 96]),
    shared=st.integers(0, 2),
    gated=st.booleans(),
    tokens=st.integers(1, 5000),
    ep=st.sampled_from([1, 4]),
    data=st.data(),
)
def test_the_same_problem_has_one_answer(
    width: int, experts: int, shared: int, gated: bool, tokens: int, ep: int, data: st.DataObject
) -> None:
    shape = MoEShape(
        hidden_size=2048,
        moe_intermediate_size=width,
        num_experts=experts,
        num_experts_per_tok=data.draw(st.integers(1, 8)),
        n_shared_experts=shared,
        gated=gated,
    )
    row = predicted(shape, "trainium2", num_tokens=tokens, ep=ep)
    (audited,) = mc.audit(shape, ["trainium2"], tokens=[tokens], ep=ep)
    assert audited.estimate is not None
    latency_us = audited.estimate.timing.latency_us
    assert row["error"] == ""
    assert row["latency_us"] == pytest.approx(latency_us, rel=1e-6, abs=1e-4)
    assert searched(shape, "trainium2", tokens, ep) == latency_us
    named = predicted(shape, "trainium2", num_tokens=tokens, ep=ep, routing=DEFAULT_ROUTING_TEXT)
    assert named == row


def test_what_a_search_estimates_hangs_on_no_seed() -> None:
    """A decode batch on one rank of four was one draw of the routing, that of the space's seed."""
    shape = MoEShape(hidden_size=2048, moe_intermediate_size=512, num_experts=192, num_experts_per_tok=9)
    times = [searched(shape, "trainium2", 16, 4, seed) for seed in (0, 1, 2)]
    assert times == times[:1] * 3
    draws = {predicted(shape, "trainium2", num_tokens=16, ep=4, seed=seed)["latency_us"] for seed in range(4)}
    assert len(draws) > 1
