"""The loads that uniform routing is expected to bring, beside means of draws."""

import itertools

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from moe_codesign.chips import load_chip
from moe_codesign.compiler.tile_table import Tables
from moe_codesign.cost.ours.model import estimate_layer
from moe_codesign.domain.rank import rank_work
from moe_codesign.domain.routing import Uniform, parse_routing
from moe_codesign.domain.shape import MoEShape
from moe_codesign.domain.token_counts import busiest_counts, token_counts
from moe_codesign.domain.uniform_loads import UniformLoads, expected_loads, typical_counts
from moe_codesign.domain.workload import Workload

HEIGHTS = (8, 16, 32, 64, 128, 256)
NUMBERS = 5_000_000
"""Random numbers that the draws of one case take at most."""


def loads(tokens: int, experts: int, top_k: int, ranks: int, zero: int = 0) -> UniformLoads:
    return expected_loads(*(np.array([float(size)]) for size in (tokens, experts, top_k, ranks, zero)), heights=HEIGHTS)


def columns(found: UniformLoads) -> np.ndarray:
    return np.array([found.rows, found.active, found.largest, *found.row_tiles])


def of_counts(counts: np.ndarray) -> np.ndarray:
    """The same numbers of draws; counts [draws, experts of the rank]."""
    tiles = [(-(-counts // height)).sum(axis=1) for height in HEIGHTS]
    return np.array([counts.sum(axis=1), (counts > 0).sum(axis=1), counts.max(axis=1), *tiles], dtype=float)


def drawn(tokens: int, experts: int, top_k: int, ranks: int, zero: int) -> np.ndarray:
    """Numbers of draws of the busiest rank, by a way of its own."""
    rng, every = np.random.default_rng(7), experts + zero
    if top_k == 1:
        draws = 2000
        counts = rng.multinomial(tokens, np.full(every, 1 / every), size=draws)
    else:
        draws = max(100, min(2000, NUMBERS // (tokens * every)))
        counts = np.empty((draws, every), dtype=np.int64)
        for one in counts:
            chosen = np.argpartition(rng.random((tokens, every), dtype=np.float32), top_k - 1, axis=1)[:, :top_k]
            one[:] = np.bincount(chosen.ravel(), minlength=every)
    by_rank = counts[:, :experts].reshape(draws, ranks, -1)
    return of_counts(by_rank[np.arange(draws), by_rank.sum(axis=2).argmax(axis=1)])


CASES = [
    # tokens, experts, top-k, ranks, zero experts
    (1, 8, 2, 8, 0),
    (1, 512, 10, 64, 0),
    (3, 64, 6, 8, 0),
    (2, 16, 4, 1, 0),
    (8, 256, 8, 8, 0),
    (16, 8, 1, 2, 0),
    (32, 8, 2, 8, 0),
    (32, 256, 9, 8, 0),
    (32, 192, 9, 8, 0),
    (32, 512, 10, 64, 256),
    (64, 64, 6, 64, 0),
    (64, 128, 8, 1, 0),
    (256, 256, 8, 8, 128),
    (200, 8, 2, 8, 0),
    (1024, 16, 4, 2, 0),
    (1024, 128, 8, 8, 0),
    (2048, 64, 1, 1, 0),
    (4096, 64, 1, 64, 0),
    (65536, 512, 1, 64, 0),
    (1_000_000, 64, 1, 8, 64),
    (2048, 8, 2, 8, 0),
]


@pytest.mark.parametrize(("tokens", "experts", "top_k", "ranks", "zero"), CASES)
def test_expected_loads_are_the_means_of_draws(tokens: int, experts: int, top_k: int, ranks: int, zero: int) -> None:
    draws = drawn(tokens, experts, top_k, ranks, zero)
    mean, error = draws.mean(axis=1), draws.std(axis=1) / np.sqrt(draws.shape[1])
    found = columns(loads(tokens, experts, top_k, ranks, zero))[:, 0]
    assert (abs(found - mean) <= 0.01 * mean + 4 * error).all(), (found / mean, error / mean)
    typical = of_counts(typical_counts(tokens, experts, top_k, ranks, zero)[None])[:, 0]
    # Whole numbers, and the number of experts with rows is what time hangs on.
    assert (abs(typical - mean) <= np.maximum(1.1, 0.06 * mean)).all()


@st.composite
def problems(draw: st.DrawFn) -> tuple[int, int, int, int, int]:
    ranks = draw(st.sampled_from([1, 2, 8, 64]))
    experts = ranks * draw(st.integers(1, max(1, 512 // ranks)))
    top_k = draw(st.integers(1, min(16, experts)))
    tokens = draw(st.one_of(st.integers(1, 40), st.integers(1, 100_000_000)))
    return tokens, experts, top_k, ranks, draw(st.sampled_from([0, 0, 1, experts]))


@given(problems())
@example((1, 1, 1, 1, 0))
@example((1, 64, 1, 64, 0))
@example((7, 8, 8, 8, 0))
@example((100, 8, 8, 2, 0))
def test_expected_loads_keep_to_what_any_draw_keeps_to(problem: tuple[int, int, int, int, int]) -> None:
    tokens, experts, top_k, ranks, zero = problem
    found, local = loads(*problem), experts // ranks
    rows, active, largest, *tiles = columns(found)[:, 0]
    every = tokens * top_k * experts / (experts + zero)
    close = 1 + 1e-9
    assert every / ranks <= rows * close
    assert rows <= tokens * min(top_k, local) * close
    if ranks == 1:
        assert rows == pytest.approx(every)
    assert active <= min(rows, local) * close
    assert rows / local <= largest * close
    assert largest <= min(tokens, rows) * close
    for height, number in zip(HEIGHTS, tiles, strict=True):
        assert max(active, rows / height) <= number * 1.01
        assert number <= min(rows, active + rows / height) * 1.01
    assert all(low <= high * close for high, low in itertools.pairwise(tiles))

    counts = typical_counts(*problem)
    assert len(counts) == local
    assert counts.sum() == round(rows)
    assert 0 <= counts.min() <= counts.max() <= tokens
    assert (counts == typical_counts(*problem)).all()


@given(problems())
def test_more_tokens_are_more_of_everything(problem: tuple[int, int, int, int, int]) -> None:
    tokens, *others = problem
    fewer, more = (columns(loads(n, *others))[:, 0] for n in (tokens, tokens + 1 + tokens // 20))
    assert (fewer <= more * 1.002).all()


def test_columns_are_the_same_rows_together_as_alone() -> None:
    sizes = np.array(CASES, dtype=float).T
    together = columns(expected_loads(*sizes, heights=HEIGHTS))
    assert together == pytest.approx(np.concatenate([columns(loads(*case)) for case in CASES], axis=1), rel=1e-9)


def test_a_decode_batch_is_no_matter_of_luck() -> None:
    """32 tokens on 8 ranks: by its draw one shape seemed a fifth faster than the other, or slower."""
    chip, tables = load_chip("h100_sxm"), Tables()
    expected = []
    for experts, width in ((256, 384), (192, 512)):
        shape = MoEShape(hidden_size=2048, moe_intermediate_size=width, num_experts=experts, num_experts_per_tok=9)

        def time_us(seed: int | None, shape: MoEShape = shape) -> float:
            work = rank_work(shape, Workload(name="decode", num_tokens=32, ep=8, seed=seed))
            return estimate_layer(tables, chip, work).timing.latency_us

        draws = [time_us(seed) for seed in range(16)]
        assert max(draws) / min(draws) > 1.15
        assert time_us(None) == pytest.approx(np.mean(draws), rel=0.03)
        expected.append(time_us(None))
    assert expected[0] < expected[1]


def test_a_seed_asks_for_that_draw() -> None:
    shape = MoEShape(hidden_size=64, moe_intermediate_size=64, num_experts=64, num_experts_per_tok=4)
    for seed in (0, 3):
        by_rank = token_counts(Uniform(), 100, 64, 4, seed).reshape(8, 8)
        busiest = by_rank[by_rank.sum(axis=1).argmax()]
        assert (rank_work(shape, Workload(name="w", num_tokens=100, ep=8, seed=seed)).rows == busiest).all()


@pytest.mark.parametrize("routing", ["zipf:0.8", "power_law:1.2"])
def test_other_routings_are_the_mean_of_several_draws(routing: str) -> None:
    kind = parse_routing(routing)
    each = [np.sort(busiest_counts(kind, 512, 64, 4, seed=seed, ranks=8)) for seed in range(5)]
    counts = busiest_counts(kind, 512, 64, 4, ranks=8)
    assert abs(counts - np.mean(each, axis=0)).max() <= 1
    assert counts.max() <= 512
