"""Timings, pairs, failures and trials: what means nothing cannot be built, and JSON gives back what it was given."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from moe_codesign.domain.failure import Failure, FailureKind
from moe_codesign.domain.pair import Pair
from moe_codesign.domain.shape import MoEShape
from moe_codesign.domain.tile_pair import TilePair
from moe_codesign.domain.timing import Timing
from moe_codesign.domain.trial import Answered, Refused, Trial
from moe_codesign.domain.workload import Workload
from moe_codesign.errors import UserError
from moe_kernels.tile import TritonTile
from tests.domain.values import pairs

TIMING = Timing(grade="modelled", latency_us=2, low_us=1, high_us=3, bound_us=1, limiter="memory")
SHAPE = MoEShape(hidden_size=64, moe_intermediate_size=64, num_experts=8, num_experts_per_tok=2)
PAIR = Pair(
    chip="a chip",
    shape=SHAPE,
    workload=Workload(name="decode", num_tokens=4),
    kernel=None,
    tiles=None,
    timing=TIMING,
    quality_ratio=1.0,
)
TILE = TritonTile(block_m=16, block_n=64, block_k=64, num_warps=4, num_stages=3)
TILES = TilePair(TILE, dataclasses.replace(TILE, swap_ab=True))
FAILURE = Failure(FailureKind.MEMORY, "too much")


@pytest.mark.parametrize(
    "changes",
    [
        {"bound_us": math.nan},
        {"bound_us": -1.0},
        {"high_us": math.inf},
        {"latency_us": math.nan},
        {"low_us": -1.0},
        {"low_us": 0.0},
        {"parts_us": {"wait": math.nan}},
        {"parts_us": {"wait": -1.0}},
        {"samples_us": (1.0, math.inf)},
        {"samples_us": (0.0,)},
        {"grade": "guessed"},
    ],
)
def test_a_timing_without_meaning_cannot_be_built(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        dataclasses.replace(TIMING, **changes)


@pytest.mark.parametrize("gated", ["no", 1, None])
def test_gated_is_true_or_false(gated: object) -> None:
    with pytest.raises(UserError, match="gated"):
        dataclasses.replace(SHAPE, gated=gated)  # type: ignore[arg-type]


@pytest.mark.parametrize("changes", [{"quality_ratio": math.nan}, {"quality_ratio": 0.0}, {"tiles": TILES}])
def test_a_pair_without_meaning_cannot_be_built(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"quality_ratio|no kernel"):
        dataclasses.replace(PAIR, **changes)


def test_a_trial_has_pairs_or_a_failure() -> None:
    with pytest.raises(ValueError, match="at least one pair"):
        Answered(())
    with pytest.raises(ValueError, match="one pair for each workload"):
        Answered((PAIR, PAIR))
    for failure in (("memory", "too much"), (FailureKind.MEMORY, " "), (FailureKind.MEMORY, "x", math.nan)):
        with pytest.raises(ValueError, match=r"kind|text|violation"):
            Failure(*failure)
    answered = Trial(chip="a chip", mode="joint", number=0, outcome=Answered((PAIR,)))
    assert answered.pairs == (PAIR,)
    assert answered.failure is None
    refused = dataclasses.replace(answered, outcome=Refused(FAILURE))
    assert refused.pairs == ()
    assert refused.failure == FAILURE
    assert answered != refused
    for changes in ({"mode": "reference"}, {"number": -1}, {"chip": "another"}):
        with pytest.raises(ValueError, match=r"mode|number|another chip"):
            dataclasses.replace(answered, **changes)


def test_a_failure_is_printed_with_its_kind() -> None:
    assert str(FAILURE) == "memory: too much"


@settings(max_examples=50)
@given(pair=pairs())
def test_a_pair_survives_json(pair: Pair) -> None:
    assert Pair.from_dict(json.loads(json.dumps(pair.to_dict()))) == pair


@pytest.mark.parametrize(
    ("table", "key", "value"),
    [
        (None, "colour", 1),
        (None, "quality_ratio", "1"),
        ("shape", "gated", "no"),
        ("shape", "experts", 4),
        ("timing", "high_us", "3"),
        ("timing", "bound_us", -1.0),
        ("workload", "routing", "nonsense"),
        ("workload", "num_tokens", 1.5),
    ],
)
def test_another_pair_in_json_is_refused(table: str | None, key: str, value: object) -> None:
    data = PAIR.to_dict()
    (data if table is None else data[table])[key] = value
    with pytest.raises(ValueError, match=key):
        Pair.from_dict(data)


@pytest.mark.parametrize("key", ["chip", "shape", "timing", "quality_ratio"])
def test_a_pair_in_json_without_a_field_is_refused(key: str) -> None:
    data = PAIR.to_dict()
    del data[key]
    with pytest.raises(ValueError, match=key):
        Pair.from_dict(data)


def test_tiles_are_dictionaries_in_json_and_tiles_everywhere_else() -> None:
    pair = dataclasses.replace(PAIR, kernel="triton.grouped_gemm", tiles=TILES)
    data = pair.to_dict()
    assert data["tiles"] == [tile.as_dict() for tile in TILES]
    assert data["tile_labels"] == [tile.label() for tile in TILES]
    assert Pair.from_dict(data).tiles == TILES


def test_a_stored_pair_from_before_a_tile_had_a_field_reads_with_its_default() -> None:
    data = dataclasses.replace(PAIR, kernel="triton.grouped_gemm", tiles=TILES).to_dict()
    for tile in data["tiles"]:
        del tile["maxnreg"]
    assert Pair.from_dict(data).tiles == TILES


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"kernel": "triton.nothing"}, "'triton.nothing', whose tiles these are, is not known"),
        ({"kernel": None}, "kernel None"),
        ({"tiles": [TILE.as_dict()]}, "these are 1"),
        ({"tiles": [TILE.as_dict(), {"tile_m": 16}]}, "unknown tile field 'tile_m'"),
        ({"tiles": [TILE.as_dict(), TILE.as_dict() | {"block_m": 0}]}, "block_m = 0"),
    ],
)
def test_stored_tiles_that_no_kernel_has_are_refused(changes: dict[str, Any], says: str) -> None:
    data = dataclasses.replace(PAIR, kernel="triton.grouped_gemm", tiles=TILES).to_dict()
    with pytest.raises(ValueError, match=says):
        Pair.from_dict(data | changes)


def test_pairs_that_were_stored_on_a_gpu_read() -> None:
    stored = json.loads(Path("results/gpu/NVIDIA_H100_80GB_HBM3_search.json").read_text(encoding="utf-8"))["pairs"]
    for data in stored:
        pair = Pair.from_dict({name: value for name, value in data.items() if name not in ("mode", "trial")})
        assert pair.tiles is not None
        assert [tile.label() for tile in pair.tiles] == data["tile_labels"]
