import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_codesign.domain.rank import rank_work
from moe_codesign.domain.routing import Routing, _deal, _laid_out, tokens_with
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
    counts = Routing.parse(kind).counts(tokens, experts, top_k, seed)
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
    _deal(fast, units, 9)
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
    counts = Routing.parse(f"{kind}/8/4").counts(tokens, 64, 8, 1)
    assert counts.sum() == tokens * 8
    assert counts.max() <= tokens
    if kind == "balanced":
        # One choice a group: of eight equal groups the first four are kept, and filled up from their first experts.
        assert counts[32:].sum() == 0
        assert (counts[:4] == tokens).all()
    wide = Routing.parse(f"{kind}/8/8").counts(tokens, 64, 8, 1)
    assert (wide == Routing.parse(kind).counts(tokens, 64, 8, 1)).all(), "all groups are kept: no limit"


@settings(deadline=None, max_examples=60)
@given(tokens=st.integers(1, 300), ranks=st.sampled_from([1, 2, 4, 8]), top_k=st.sampled_from([1, 3, 8]))
def test_tokens_of_a_rank_are_counted_as_they_are_laid_out(tokens: int, ranks: int, top_k: int) -> None:
    counts = Routing.parse("power_law:1.2").counts(tokens, 64, top_k, 3, ranks)
    chosen = _laid_out(counts, tokens)
    assert (np.bincount(chosen.ravel(), minlength=64) == counts).all()
    assert all(len(set(row)) == top_k for row in chosen.tolist()), "distinct experts"
    own = slice(0, 64 // ranks)
    assert tokens_with(counts, own, tokens) == (chosen < own.stop).any(axis=1).sum()


def test_a_power_law_deals_what_rounding_leaves_to_the_ranks_in_turn() -> None:
    routing = Routing.parse("power_law:1.2")
    drawn = routing.counts(100, 256, 8, 0), routing.counts(100, 256, 8, 0, 4)
    assert drawn[0].sum() == drawn[1].sum() == 800
    # The same draw, rounded alike; only where the missing rows went differs, by at most one an expert and fairly.
    moved = (drawn[1] - drawn[0]).reshape(4, 64)
    assert np.abs(moved).max() == 1
    assert (moved != 0).any()
    with pytest.raises(UserError, match="ranks: got 3"):
        routing.counts(100, 256, 8, 0, 3)


def test_limits_that_cannot_be_are_told() -> None:
    with pytest.raises(UserError, match="no other"):
        Routing("uniform", groups=8, kept=4)
    with pytest.raises(UserError, match="divide the experts"):
        Routing.parse("balanced/8/4").counts(4, 60, 6)
    with pytest.raises(UserError, match="keep enough"):
        Routing.parse("power_law:1/8/1").counts(4, 64, 9)
    assert str(Routing.parse("power_law:1.2/8/4")) == "power_law:1.2/8/4"


def test_balanced_is_as_even_as_can_be() -> None:
    counts = Routing.parse("balanced").counts(17, 128, 8)
    assert counts.max() - counts.min() <= 1


def test_draws_repeat_with_the_seed_and_change_with_it() -> None:
    routing = Routing.parse("uniform")
    assert (routing.counts(100, 64, 4, 1) == routing.counts(100, 64, 4, 1)).all()
    assert (routing.counts(100, 64, 4, 1) != routing.counts(100, 64, 4, 2)).any()


def test_skew_grows_with_alpha() -> None:
    peaks = [Routing.parse(k).counts(4096, 128, 8, 0).max() for k in ("balanced", "uniform", "zipf:0.5", "zipf:1.5")]
    assert peaks == sorted(peaks)
    assert peaks[-1] > 4 * peaks[0]


def test_uniform_has_the_spread_of_distinct_choices() -> None:
    counts = np.concatenate([Routing.parse("uniform").counts(1000, 64, 8, s) for s in range(20)])
    expected = 1000 * (8 / 64) * (1 - 8 / 64)
    assert counts.var() == pytest.approx(expected, rel=0.15)


def test_histogram(tmp_path: Path) -> None:
    file = tmp_path / "h.json"
    file.write_text(json.dumps([3, 1, 0, 4]))
    counts = Routing.parse(f"histogram:{file}").counts(8, 4, 2)
    assert counts.tolist() == [6, 2, 0, 8]
    with pytest.raises(UserError, match="num_experts = 5"):
        Routing.parse(f"histogram:{file}").counts(8, 5, 2)


@pytest.mark.parametrize(
    "text",
    [
        "zipf",
        "zipf:x",
        "zipf:-1",
        "zipf:nan",
        "fair",
        "balanced:2",
        "histogram:/none",
        "balanced/8",
        "balanced/4/8",
        "balanced/0/0",
        "balanced/9999999/1",
        "uniform/8/4",
        "power_law:1/8/x",
    ],
)
def test_bad_routing_is_told(text: str) -> None:
    with pytest.raises(UserError):
        Routing.parse(text)


def test_the_busiest_rank_is_timed() -> None:
    shape = find_model("DeepSeek-V3")
    workload = Workload(name="w", num_tokens=512, routing=Routing.parse("zipf:1"), ep=8, tp=2)
    work = rank_work(shape, workload)
    counts = workload.routing.counts(512, 256, 8, 0).reshape(8, 32)
    assert work.rows[:32].sum() == counts.sum(axis=1).max()
    assert work.rows[32:].tolist() == [64], "the shared expert serves the rank's own tokens"
    assert work.intermediate_size == 1024


def test_a_split_that_does_not_fit_is_told() -> None:
    shape = find_model("Qwen3-30B-A3B")
    with pytest.raises(UserError, match="no multiple of ep 3"):
        rank_work(shape, Workload(name="w", num_tokens=1, ep=3))
