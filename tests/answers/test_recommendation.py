"""What is recommended of a chip's pairs, on pairs whose times and qualities are known."""

from typing import Any

import pytest

from moe_codesign.answers.frontier_rows import json_rows, report_rows, thinned
from moe_codesign.answers.recommendation import Recommendation, recommend
from moe_codesign.chips import load_chip
from moe_codesign.domain.pair import Pair
from moe_codesign.domain.shape import MoEShape
from moe_codesign.domain.tile_pair import TilePair
from moe_codesign.domain.timing import Timing
from moe_codesign.domain.trial import Answered, Trial
from moe_codesign.domain.workload import Workload
from moe_codesign.study.runner import SearchResult
from moe_codesign.study.space import Space
from moe_kernels.tile import TritonTile
from tests.conftest import make_space

H100 = load_chip("h100_sxm")
TILE, OTHER = (
    TritonTile(block_m=rows, block_n=128, block_k=64, num_warps=4, num_stages=3, tma=True) for rows in (64, 16)
)
WIDE = 1.05
TWO = [{"name": "decode", "num_tokens": 64}, {"name": "prefill", "num_tokens": 4096}]
BOTH = ["decode.latency_us", "prefill.latency_us", "quality"]


@pytest.fixture(autouse=True)
def independent_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ships may be fitted anew; tests/cost/test_ratio.py has its part."""
    monkeypatch.setattr("moe_codesign.cost.ratio.law_of", lambda *_: None)


def pairs(
    width: int,
    decode: float,
    prefill: float,
    *,
    quality: float = 1.0,
    laws: dict[str, float] | None = None,
    tile: TritonTile = TILE,
    high: float = WIDE,
) -> tuple[Pair, ...]:
    return tuple(
        Pair(
            chip="h100_sxm",
            shape=MoEShape(hidden_size=2048, moe_intermediate_size=width, num_experts=128, num_experts_per_tok=8),
            workload=Workload(name=name, num_tokens=tokens),
            kernel="triton.grouped_gemm",
            tiles=TilePair(tile, tile),
            timing=Timing(
                grade="modelled", latency_us=us, low_us=us / high, high_us=us * high, bound_us=1.0, limiter="memory"
            ),
            quality_ratio=quality,
            quality_by_law=laws or {},
        )
        for name, tokens, us in (("decode", 64, decode), ("prefill", 4096, prefill))
    )


def study(*tried: tuple[Pair, ...], space: Space | None = None, **changes: Any) -> SearchResult:
    space = space or make_space(chips=["h100_sxm"], workloads=TWO, objectives=BOTH, **changes)
    return SearchResult(
        "mine",
        space,
        [Trial(chip="h100_sxm", mode="exact", number=n, outcome=Answered(one)) for n, one in enumerate(tried)],
        {"h100_sxm": pairs(768, 200.0, 2000.0)},
        {},
        tuned_reference={"h100_sxm": pairs(768, 160.0, 1600.0, tile=OTHER)},
    )


def recommended(result: SearchResult) -> Recommendation:
    found = recommend(result, H100)
    assert found is not None
    return found


def width(found: Recommendation) -> int:
    return found.pairs[0].shape.moe_intermediate_size


def test_the_knee_loses_least_in_everything() -> None:
    # 512 is the best at decode, 1024 at prefill; 640 is within 5 % of both.
    tried = [pairs(512, 100.0, 1500.0), pairs(640, 105.0, 1050.0), pairs(1024, 150.0, 1000.0)]
    found = recommended(study(*tried))
    assert width(found) == 640
    assert found.runner_up is not None
    assert found.runner_up.slower.value > 1
    assert {name: one.pairs[0].shape.moe_intermediate_size for name, one in found.alone.items()} == {
        "decode": 512, "prefill": 1024,
    }  # fmt: skip


def test_weights_of_the_user_come_first() -> None:
    tried = [pairs(512, 100.0, 1500.0), pairs(640, 105.0, 1050.0), pairs(1024, 150.0, 1000.0)]
    for weights, best in (({"decode.latency_us": 20.0}, 512), ({"decode.latency_us": 0.0}, 1024)):
        assert width(recommended(study(*tried, recommend={"weights": weights}))) == best
    # Quality is a constraint unless it is weighed.
    tried.append(pairs(2048, 106.0, 1060.0, quality=2.0))
    assert width(recommended(study(*tried))) == 640
    assert width(recommended(study(*tried, recommend={"weights": {"quality": 1.0}}))) == 2048
    assert width(recommended(study(*tried, constraints={}))) == 2048, "no constraint holds quality, so it counts"


def test_gains_are_split_into_tiles_and_shape() -> None:
    gain = recommended(study(pairs(640, 80.0, 800.0))).gain
    assert gain is not None
    assert gain.tiles is not None
    assert gain.tiles.value == pytest.approx(1.25)
    assert gain.shape.value == pytest.approx(2.0)
    assert gain.whole.value == pytest.approx(gain.tiles.value * gain.shape.value)


def test_a_space_with_worse_tiles_than_the_default_takes_none_from_it() -> None:
    result = study(pairs(640, 80.0, 800.0))
    result.tuned_reference["h100_sxm"] = pairs(768, 300.0, 3000.0, tile=OTHER)
    gain = recommended(result).gain
    assert gain is not None
    assert gain.tiles is not None
    assert gain.tiles.value == 1.0
    assert gain.shape.value == pytest.approx(2.5)


def test_a_pair_is_recommended_only_if_it_holds_under_every_law() -> None:
    fast = pairs(512, 80.0, 800.0, laws={"abnar": 0.9, "zhao": 1.2})
    safe = pairs(640, 100.0, 1000.0, laws={"abnar": 1.01, "zhao": 1.1})
    found = recommended(study(fast, safe))
    assert (width(found), found.fails) == (640, ())
    assert found.excluded is not None
    assert found.excluded.fails == ("abnar",)
    assert "without abnar H2048 I512 E128 k8, 20.0% faster" in str(found)
    alone = recommended(study(fast))
    assert alone.fails == ("abnar",)
    assert "it does NOT hold under abnar, and no shape holds under all" in str(alone)


def test_nothing_beats_the_reference_within_error() -> None:
    found = recommended(study(pairs(640, 158.0, 1580.0)))
    assert not found.beats_reference
    assert str(found).startswith(
        "h100_sxm: nothing beats your reference Qwen3-30B-A3B with its best tiles beyond error; best tiles "
        "alone give it 1.25x ("
    )
    assert "Nearest is H2048 I640 E128 k8, 1.01x (" in str(found)
    assert ", a tie)" in str(found)
    itself = recommended(study(pairs(768, 160.0, 1600.0, tile=OTHER)))
    assert "The rule takes the reference itself." in str(itself)


def test_the_sentence() -> None:
    tried = [pairs(640, 80.0, 800.0, quality=1.013, laws={"abnar": 1.02}), pairs(512, 81.0, 810.0, quality=1.1)]
    assert str(recommended(study(*tried))) == SENTENCE


def test_no_shape_no_recommendation() -> None:
    assert recommend(study(), H100) is None
    assert json_rows(study())["recommendation"] == {"h100_sxm": None}


def test_a_reference_that_was_not_timed() -> None:
    result = study(pairs(640, 80.0, 800.0))
    result.reference.clear()
    found = recommended(result)
    assert (found.gain, found.weights_gb, found.beats_reference) == (None, None, False)
    assert "could not be timed here" in str(found)


def test_it_is_in_json() -> None:
    said = json_rows(study(pairs(640, 80.0, 800.0), pairs(512, 81.0, 810.0)))["recommendation"]["h100_sxm"]
    assert said["beats_reference"] is True
    assert said["gains"]["decode"]["shape"]["ratio"] == pytest.approx(2.0)
    assert said["gains"]["decode"]["shape"]["chance"] > 0.99
    assert said["pairs"][0]["shape"]["moe_intermediate_size"] == 640
    assert said["runner_up"]["time"]["tie"] is True


def test_pairs_within_error_of_others_are_thinned_out() -> None:
    tried = [
        pairs(640, 100.0, 1000.0, quality=1.0),
        pairs(672, 101.0, 1010.0, quality=1.005),  # a tie in time, level in quality
        pairs(704, 102.0, 1020.0, quality=1.2),  # a tie in time, better
        pairs(1024, 180.0, 1800.0, quality=1.3),
        pairs(1088, 182.0, 1810.0, quality=1.33, laws={"abnar": 1.0}),
        pairs(1152, 183.0, 1820.0, quality=1.4, laws={"abnar": 0.9}),  # another law has it worse
    ]
    rows = report_rows(study(*tried))
    assert len({row.trial for row in rows if row.on_frontier}) == 6
    assert thinned(rows, 9) == ([("exact", n) for n in (0, 2, 3, 4)], 2)
    assert thinned(rows, 9, ("exact", 1)) == ([("exact", n) for n in (1, 2, 3, 4)], 2)
    assert thinned(rows, 2) == ([("exact", 0), ("exact", 2)], 1)


def test_weights_are_of_objectives() -> None:
    with pytest.raises(Exception, match=r"recommend\.weights has 'decode\.latency', no objective"):
        study(recommend={"weights": {"decode.latency": 1.0}})
    with pytest.raises(Exception, match="leaves no objective that counts"):
        study(recommend={"weights": dict.fromkeys(BOTH, 0.0)})


SENTENCE = (
    "h100_sxm: take H2048 I640 E128 k8, 2.50x (2.33 .. 2.68) over Qwen3-30B-A3B with its default tiles: 1.25x (1.17 .. "
    "1.34) from tiles, 2.00x (1.87 .. 2.14) from shape; the chance that it beats the reference with its best tiles is "
    "over 99%. From shape by workload: decode 2.00x (1.87 .. 2.14), prefill 2.00x (1.87 .. 2.14). Quality +1.3% by "
    "efficiency_leverage, +2.0% by abnar. Weights 1.0 GB a chip, the reference's 1.2. What would change it: next is "
    "H2048 I512 E128 k8, 1.2% slower, a tie; quality binds, with 1.3% to spare by efficiency_leverage."
)
