"""pytest-benchmark suite: host kernel, compiles, first answer, predictions and trials per second. ``make bench``."""

import dataclasses
import functools
import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

os.environ["JAX_PLATFORMS"] = "cpu"

import moe_codesign as mc
from moe_codesign.answers.predictor import Predictor
from moe_codesign.chips import load_chip
from moe_codesign.compiler import ArtifactCache, compile_all, requests_for
from moe_codesign.compiler.kernels import kernel_for
from moe_codesign.compiler.tile_table import Tables
from moe_codesign.models import find_model, models
from moe_kernels.kernel import Problem

SPACE = Path(__file__).parents[2] / "search_spaces" / "quickstart.toml"


@pytest.mark.parametrize("tile", [(16, 1024, 1024), (64, 1024, 1024), (16, 512, 512)], ids=str)
@pytest.mark.parametrize("tokens", [8, 128])
def test_host_layer(benchmark: BenchmarkFixture, tile: tuple[int, int, int], tokens: int) -> None:
    """One layer of Qwen3-30B-A3B on an EP-32 rank, Pallas through XLA, verified before it is timed."""
    import jax.numpy as jnp

    from moe_codesign.domain.rank import rank_work
    from moe_codesign.domain.routing import Balanced
    from moe_codesign.domain.tile_pair import TilePair
    from moe_codesign.domain.workload import Workload
    from moe_codesign.measure.draws import before_timing
    from moe_codesign.measure.jax_device import JaxDevice
    from moe_codesign.measure.job import LayerJob
    from moe_codesign.measure.verification import Tolerance, check
    from moe_kernels.tile import BlockedTile

    work = rank_work(find_model("Qwen3-30B-A3B"), Workload(name="bench", num_tokens=tokens, ep=32, routing=Balanced()))
    config = BlockedTile(tile_m=tile[0], tile_k=tile[1], tile_n=tile[2])
    job = LayerJob.of(work, [TilePair(config, config)])
    device = JaxDevice("cpu")
    device.load(job)
    (draw, *_) = before_timing(job)
    device.draw(draw)
    once = functools.partial(device.launch, job.candidates[0])
    once()
    check(device.output(job.candidates[0]), device.expected(draw), Tolerance.of_layer(job.dtype))
    benchmark.extra_info |= {"grade": "measured", "dtype": str(jnp.bfloat16.dtype), "rows": work.total_rows}
    benchmark.pedantic(once, rounds=7, warmup_rounds=1)


@pytest.mark.parametrize(("chip", "tiles"), [("h100_sxm", 8), ("mi300x", 8), ("tpu_v6e", 4)])
def test_compile_throughput(benchmark: BenchmarkFixture, chip: str, tiles: int, tmp_path: Path) -> None:
    """Cold compiles of the down GEMM in two processes; see extra_info for tiles per second."""
    found = load_chip(chip)
    kernel = kernel_for(found)
    every = [t for t in kernel.tiles() if kernel.refuses(Problem(op="down", dtype="bfloat16"), t, None) is None]
    # Launch fields make no binary of their own.
    distinct = {r: t for (_, t), r in requests_for(kernel, found, ["down"], "bfloat16", every).items()}
    wanted = list(itertools.islice(distinct, 0, None, max(1, len(distinct) // tiles)))[:tiles]
    folders = (tmp_path / str(i) for i in itertools.count())
    benchmark.pedantic(lambda: compile_all(wanted, ArtifactCache(next(folders)), jobs=2, recompile=True), rounds=1)
    benchmark.extra_info["tiles_per_s"] = len(wanted) / benchmark.stats["mean"]


def test_help(benchmark: BenchmarkFixture) -> None:
    """A new process each; acceptance allows 0.5 s."""
    command = [sys.executable, "-m", "moe_codesign.cli", "--help"]
    benchmark.pedantic(lambda: subprocess.run(command, check=True, capture_output=True), rounds=5)


def test_predictions(benchmark: BenchmarkFixture) -> None:
    """Distinct problems, each over all tiles of both GEMMs, warm cache; extra_info has problems per second."""
    tables = Tables(jobs=os.cpu_count() or 1)
    rows = [
        {**{k: v for k, v in dataclasses.asdict(shape).items() if k != "name"}, "chip": chip, "num_tokens": tokens}
        for shape in models().values()
        if shape.gated
        for chip in ("h100_sxm", "tpu_v6e")
        for tokens in (1, 17, 300, 5000)
    ]
    predictor = Predictor(tables)
    predictor.answer(rows[:8])
    answered = benchmark.pedantic(lambda: predictor.answer(rows), rounds=3)
    assert not any(row["error"] for row in answered)
    benchmark.extra_info["problems_per_s"] = len(rows) / benchmark.stats["mean"]


@pytest.mark.parametrize("mode", ["joint", "nested"])
def test_trials(benchmark: BenchmarkFixture, mode: str, tmp_path: Path) -> None:
    """Forty trials on one chip, stored and reported to Optuna, warm cache; extra_info has trials per second."""
    space = mc.load_space(SPACE, chips=["h100_sxm"]).model_copy(update={"modes": [mode]})
    numbers = itertools.count()

    def run() -> int:
        url = f"sqlite:///{tmp_path / f'{next(numbers)}.db'}"
        return len(mc.search(space, trials=40, storage=url, jobs=os.cpu_count() or 1).trials)

    run()
    assert benchmark.pedantic(run, rounds=2) == 40
    benchmark.extra_info["trials_per_s"] = 40 / benchmark.stats["mean"]
