import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_codesign.domain.rank import rank_work
from moe_codesign.domain.routing import parse_routing
from moe_codesign.domain.token_counts import deal, laid_out, token_counts, tokens_with
from moe_codesign.domain.workload import Workload
from moe_codesign.errors import UserError
from moe_codesign.models import find_model

KINDS = ["balanced", "uniform", "zipf:0.7", "zipf:2", "power_law:1.01", "power_law:1.2"]


@settings(deadline=None, max_examples=60)
@given(
    kind=st.sampled_from(KINDS),
    tokens=st.integers(1, 3000),
    experts=st.integers(1, 300),
    data=st.data(),
    seed=st.integers(0, 5),
)
def test_counts_are_conserved_and_possible(
    kind: str, tokens: int, experts: int, data: st.DataObject, seed: int
) -> None:
    top_k = data.draw(st.integers(1, experts))
    counts = token_counts(parse_routing(kind), tokens, experts, top_k, seed)
    assert counts.shape == (experts,)
    assert counts.sum() == tokens * top_k
    assert counts.min() >= 0
    assert counts.max() <= tokens, "a token visits an expert at most once"


@settings(deadline=None, max_examples=60)
@given(
    counts=st.lists(st.lists(st.integers(0, 9), min_size=3, max_size=3), min_size=1, max_size=4),
    units=st.integers(0, 60),
)
def test_units_are_dealt_to_the_least_of_each_rank_in_turn(counts: list[list[int]], units: int) -> None:
    fast = np.array(counts)
    deal(fast, units, 9)
    slow = np.array(counts)
    while units and (slow < 9).any():
        for rank in slow:
            if units and (rank < 9).any():
                rank[rank.argmin()] += 1
                units -= 1
    assert fast.tolist() == slow.tolist()


@pytest.mark.parametrize("kind", ["balanced", "power_law:1.2"])
@pytest.mark.parametrize("tokens", [1, 5, 40, 700])
def test_limited_choices_lie_in_the_groups_that_are_kept(kind: str, tokens: int) -> None:
    counts = token_counts(parse_routing(f"{kind}/8/4"), tokens, 64, 8, 1)
    assert counts.sum() == tokens * 8
    assert counts.max() <= tokens
    if kind == "balanced":
        # One choice a group: of eight equal groups the first four are kept, and filled up from their first experts.
        assert counts[32:].sum() == 0
        assert (counts[:4] == tokens).all()
    wide = token_counts(parse_routing(f"{kind}/8/8"), tokens, 64, 8, 1)
    assert (wide == token_counts(parse_routing(kind), tokens, 64, 8, 1)).all(), "all groups are kept: no limit"


@settings(deadline=None, max_examples=60)
@given(tokens=st.integers(1, 300), ranks=st.sampled_from([1, 2, 4, 8]), top_k=st.sampled_from([1, 3, 8]))
def test_tokens_of_a_rank_are_counted_as_they_are_laid_out(tokens: int, ranks: int, top_k: int) -> None:
    counts = token_counts(parse_routing("power_law:1.2"), tokens, 64, top_k, 3, ranks)
    chosen = laid_out(counts, tokens)
    assert (np.bincount(chosen.ravel(), minlength=64) == counts).all()
    assert all(len(set(row)) == top_k for row in chosen.tolist()), "distinct experts"
    own = slice(0, 64 // ranks)
    assert tokens_with(counts, own, tokens) == (chosen < own.stop).any(axis=1).sum()


def test_a_power_law_deals_what_rounding_leaves_to_the_ranks_in_turn() -> None:
    routing = parse_routing("power_law:1.2")
    drawn = token_counts(routing, 100, 256, 8, 0), token_counts(routing, 100, 256, 8, 0, 4)
    assert drawn[0].sum() == drawn[1].sum() == 800
    # The same draw, rounded alike; only where the missing rows went differs, by at most one an expert and fairly.
    moved = (drawn[1] - drawn[0]).reshape(4, 64)
    assert np.abs(moved).max() == 1
    assert (moved != 0).any()
    with pytest.raises(UserError, match="ranks: got 3"):
        token_counts(routing, 100, 256, 8, 0, 3)


def test_limits_that_do_not_fit_the_experts_are_refused() -> None:
    with pytest.raises(UserError, match="divide the experts"):
        token_counts(parse_routing("balanced/8/4"), 4, 60, 6)
    with pytest.raises(UserError, match="keep enough"):
        token_counts(parse_routing("power_law:1/8/1"), 4, 64, 9)


def test_balanced_is_as_even_as_can_be() -> None:
    counts = token_counts(parse_routing("balanced"), 17, 128, 8)
    assert counts.max() - counts.min() <= 1


def test_draws_repeat_with_the_seed_and_change_with_it() -> None:
    routing = parse_routing("uniform")
    assert (token_counts(routing, 100, 64, 4, 1) == token_counts(routing, 100, 64, 4, 1)).all()
    assert (token_counts(routing, 100, 64, 4, 1) != token_counts(routing, 100, 64, 4, 2)).any()


def test_skew_grows_with_alpha() -> None:
    peaks = [
        token_counts(parse_routing(k), 4096, 128, 8, 0).max() for k in ("balanced", "uniform", "zipf:0.5", "zipf:1.5")
    ]
    assert peaks == sorted(peaks)
    assert peaks[-1] > 4 * peaks[0]


def test_uniform_has_the_spread_of_distinct_choices() -> None:
    counts = np.concatenate([token_counts(parse_routing("uniform"), 1000, 64, 8, s) for s in range(20)])
    expected = 1000 * (8 / 64) * (1 - 8 / 64)
    assert counts.var() == pytest.approx(expected, rel=0.15)


def test_histogram(tmp_path: Path) -> None:
    file = tmp_path / "h.json"
    file.write_text(json.dumps([3, 1, 0, 4]))
    counts = token_counts(parse_routing(f"histogram:{file}"), 8, 4, 2)
    assert counts.tolist() == [6, 2, 0, 8]
    with pytest.raises(UserError, match="num_experts = 5"):
        token_counts(parse_routing(f"histogram:{file}"), 8, 5, 2)


def test_the_busiest_rank_is_timed() -> None:
    shape = find_model("DeepSeek-V3")
    workload = Workload(name="w", num_tokens=512, routing=parse_routing("zipf:1"), ep=8, tp=2, seed=0)
    work = rank_work(shape, workload)
    counts = token_counts(workload.routing, 512, 256, 8, 0).reshape(8, 32)
    assert work.rows[:32].sum() == counts.sum(axis=1).max()
    assert work.rows[32:].tolist() == [64], "the shared expert serves the rank's own tokens"
    assert work.intermediate_size == 1024


def test_a_split_that_does_not_fit_is_reported() -> None:
    shape = find_model("Qwen3-30B-A3B")
    with pytest.raises(UserError, match="not a multiple of ep 3"):
        rank_work(shape, Workload(name="w", num_tokens=1, ep=3))


@pytest.mark.parametrize("kind", ["uniform", "balanced", "zipf:0.5"])
@pytest.mark.parametrize("ep", [1, 8])
def test_choices_of_zero_experts_leave_no_row(kind: str, ep: int) -> None:
    shape = find_model("LongCat-Flash")
    work = rank_work(shape, Workload(name="w", num_tokens=3000, routing=parse_routing(kind), ep=ep))
    assert len(work.rows) == 512 // ep
    # Two thirds of 12 choices a token; the busiest rank has a little more than its share, zipf far more or less.
    if kind != "zipf:0.5":
        assert work.total_rows == pytest.approx(3000 * 8 / ep, rel=0.06)
    assert work.total_rows < 3000 * 12 / ep * 1.5


def test_shared_experts_at_full_width_stand_as_latent_ones() -> None:
    shape = find_model("Nemotron-3-Super")
    work = rank_work(shape, Workload(name="w", num_tokens=64, routing=parse_routing("balanced")))
    assert (work.hidden_size, work.intermediate_size) == (1024, 2688)
    assert work.rows[512:].tolist() == [64] * (2 * 4096 // 1024)
    # As many FLOPs as the layer has without its latent projections.
    assert 2 * 2 * work.total_rows * 1024 * 2688 == 64 * (shape.active_flops_per_token - 2 * shape.latent_params)
    odd = dataclasses.replace(shape, hidden_size=4000)
    with pytest.raises(UserError, match="moe_latent_size 1024"):
        rank_work(odd, Workload(name="w", num_tokens=64))
