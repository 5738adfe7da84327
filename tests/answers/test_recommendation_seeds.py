"""What is recommended of a space that is enumerated hangs on no seed."""

from pathlib import Path
from typing import Any

import pytest

import moe_codesign as mc
from moe_codesign.answers.recommendation import recommendations
from moe_codesign.study.runner import SearchResult
from moe_codesign.study.space import Space
from tests.conftest import make_space

A3B: dict[str, Any] = {
    "chips": ["h100_sxm"],
    "shape": {
        "moe_intermediate_size": {"low": 384, "high": 1536, "step": 128},
        "num_experts": {"low": 64, "high": 256, "step": 32},
        "num_experts_per_tok": {"low": 4, "high": 16},
    },
    "workloads": [
        {"name": "small", "num_tokens": 32, "ep": 8},
        {"name": "decode", "num_tokens": 512, "ep": 8},
        {"name": "prefill", "num_tokens": 4096, "ep": 8},
    ],
    "objectives": ["small.latency_us", "decode.latency_us", "prefill.latency_us", "quality"],
    "sampler": "auto",
    "tiles": {},
}


def searched(space: Space, seed: int, folder: Path) -> SearchResult:
    result = mc.search(space, seed=seed, storage=f"sqlite:///{folder / f'{seed}.db'}")
    assert result.is_exact
    return result


def said(result: SearchResult) -> dict[str, str]:
    return {chip: str(one) for chip, one in recommendations(result).items()}


def test_a_small_space(tmp_path: Path) -> None:
    space = make_space(
        sampler="exact", shape={"moe_intermediate_size": [512, 768, 1024], "num_experts_per_tok": [8, 9]}
    )
    first = searched(space, 0, tmp_path)
    assert said(first)["trainium2"].startswith("trainium2: ")
    assert all(said(searched(space, seed, tmp_path)) == said(first) for seed in range(1, 10))


def test_the_reference_is_kept_with_its_best_tiles_too(tmp_path: Path) -> None:
    shape = {"moe_intermediate_size": [512, 768], "num_experts_per_tok": [8, 9]}
    result = searched(make_space(chips=["h100_sxm"], sampler="exact", shape=shape), 0, tmp_path)
    (default,), (best,) = result.reference["h100_sxm"], result.tuned_reference["h100_sxm"]
    assert default.shape == best.shape
    assert default.tiles != best.tiles
    trial = next(
        trial for trial in result.trials if trial.params == {"moe_intermediate_size": 768, "num_experts_per_tok": 8}
    )
    assert trial.pairs[0].timing == best.timing, "the same tiles of the same space"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["quickstart", "around Qwen3-30B-A3B"])
def test_large_spaces(name: str, tmp_path: Path) -> None:
    quickstart = mc.load_space("quickstart", chips=["h100_sxm", "tpu_v6e"])
    space = quickstart if name == "quickstart" else make_space(**A3B)
    assert said(searched(space, 0, tmp_path)) == said(searched(space, 7, tmp_path))
