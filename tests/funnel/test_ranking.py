"""Which pairs of tiles a search measures."""

import dataclasses

import pytest

from moe_codesign import funnel
from moe_codesign.chips import load_chip
from moe_codesign.compiler.kernels import default_tiles, kernel_for
from moe_codesign.compiler.tile_table import Tables
from moe_codesign.cost.estimate import Estimate
from moe_codesign.domain.rank import RankWork, rank_work
from moe_codesign.domain.tile_pair import TilePair
from moe_codesign.domain.timing import Timing
from moe_codesign.domain.workload import Workload
from moe_codesign.funnel import promising, ranking
from moe_codesign.models import find_model
from moe_kernels.tile import TileConfig

TIMING = Timing(grade="modelled", latency_us=2, low_us=1, high_us=3, bound_us=0.5, limiter="memory")


def work(tokens: int = 64) -> RankWork:
    return rank_work(find_model("Qwen3-30B-A3B"), Workload(name="decode", num_tokens=tokens, ep=16))


@pytest.fixture
def best(monkeypatch: pytest.MonkeyPatch) -> list[TileConfig]:
    """What the cost model finds best on an H100; instead of compiling."""
    chip = load_chip("h100_sxm")
    kernel = kernel_for(chip)
    default = default_tiles(kernel, work(), chip.target).up
    tiles = [dataclasses.replace(default, block_m=128), dataclasses.replace(default, block_m=32)]  # type: ignore[call-arg]
    monkeypatch.setattr(ranking, "estimate_layer", lambda *_, **__: Estimate(TIMING, kernel.name, tuple(tiles)))
    return tiles


def test_a_gpu_measures_the_models_best_pair_and_the_default(best: list[TileConfig]) -> None:
    chip = load_chip("h100_sxm")
    kernel = kernel_for(chip)
    default = default_tiles(kernel, work(), chip.target)
    assert promising(Tables(), chip, kernel, work(), top=5) == [TilePair(*best), default]
    assert promising(Tables(), chip, kernel, work(), top=1) == [TilePair(*best)]
    best[:] = default
    assert promising(Tables(), chip, kernel, work(), top=5) == [default], "each pair once"


def test_a_narrowed_space_leaves_the_default_out(best: list[TileConfig]) -> None:
    chip = load_chip("h100_sxm")
    kernel = kernel_for(chip)
    space = {"num_stages": (7,)}
    assert promising(Tables(), chip, kernel, work(), top=5, space=space) == [TilePair(*best)]


def test_what_is_not_compiled_is_measured_with_the_default(best: list[TileConfig]) -> None:
    best.clear()
    chip = load_chip("h100_sxm")
    kernel = kernel_for(chip)
    assert promising(Tables(), chip, kernel, work(), top=5) == [default_tiles(kernel, work(), chip.target)]


def test_the_host_measures_the_pairs_with_the_fewest_grid_steps() -> None:
    chip = load_chip("cpu")
    kernel = kernel_for(chip)
    space = {"tile_m": (16, 64), "tile_k": (512, 2048), "tile_n": (256, 1024)}
    pairs = funnel.promising(Tables(), chip, kernel, work(), top=3, space=space)
    assert len(pairs) == 3
    assert pairs[0].up.as_dict() == {"tile_m": 16, "tile_k": 2048, "tile_n": 1024}
    assert pairs[0].down.as_dict()["tile_n"] == 1024
