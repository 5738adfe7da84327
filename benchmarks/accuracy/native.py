"""How right the cost model of our own kernels is on the GPU whose tiles were raced: writes results/accuracy/native.md.

Fits the first table of races and judges it by the second, which was measured after that fit and of other models; fits
both and judges every shape by the others; asks what the binaries' facts and the trees are worth; and predicts the whole
layers that benchmarks/gpu.py timed. A quarter of an hour where the tiles are compiled, half an hour where not.

    python benchmarks/accuracy/native.py [--jobs 2]
"""

import argparse
import dataclasses
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from moe_codesign.calibrating.native import Judged, Race, calibrate, fit_physics, judge, read_races
from moe_codesign.chips import load_chip
from moe_codesign.compiler.artifact import compiler_version
from moe_codesign.cost.estimate import estimate_layer
from moe_codesign.cost.gpu import Coefficients
from moe_codesign.cost.native import Native
from moe_codesign.cost.table import Tables
from moe_codesign.routing import Routing
from moe_codesign.shape import MoEShape
from moe_codesign.workload import Workload, rank_work
from moe_kernels.tile import TritonTile

RESULTS = Path(__file__).parents[2] / "results"
STEM = "NVIDIA_H100_80GB_HBM3"
CHIP = "h100_sxm"
LAYERS = {
    # hidden_size, moe_intermediate_size, experts of all ranks, top_k, ranks: as benchmarks/gpu.py times them
    "DeepSeek-V3 EP8": (7168, 2048, 256, 8, 8),
    "Qwen3-30B-A3B": (2048, 768, 128, 8, 1),
    "gpt-oss-120b": (2880, 2880, 128, 4, 1),
    "Mixtral-8x7B": (4096, 14336, 8, 2, 1),
}
HEAD = "| | races | error | regret | worst regret | best named | within the interval |\n|---|---|---|---|---|---|---|"


def line(name: str, judged: Sequence[Judged], width: float | None = None, *, physics: bool = False) -> str:
    errors = np.array([one.physics_error if physics else one.error for one in judged])
    losses = np.array([one.physics_regret if physics else one.regret for one in judged])
    inside = f"{np.mean(np.concatenate([one.log_errors for one in judged]) <= width):.0%}" if width else ""
    told = (errors.mean(), losses.mean(), losses.max(), np.mean(losses == 0))
    return f"| {name} | {len(judged)} | " + " | ".join(f"{value:.1%}" for value in told) + f" | {inside} |"


def by_dtype(title: str, judged: Sequence[Judged], widths: dict[str, float]) -> list[str]:
    kinds: dict[str, list[Judged]] = defaultdict(list)
    for one in judged:
        kinds[one.race.gemm.dtype].append(one)
    rows = [line(dtype, some, widths[dtype]) for dtype, some in sorted(kinds.items())]
    return [f"\n## {title}\n", HEAD, *rows, line("all, physics alone", judged, physics=True)]


def left_out(races: Sequence[Race], fit: Callable[[Sequence[Race]], tuple[Native, float]]) -> list[Judged]:
    found = []
    for shape in sorted({race.shape for race in races}):
        others, own = ([r for r in races if (r.shape == shape) == here] for here in (False, True))
        found += judge(fit(others), own)
    return found


def without_facts(race: Race) -> Race:
    """As a tuner may assume who has no binary: as many registers as there are, and nothing but products."""
    unknown = {"registers": 255.0, "shared_bytes": 0.0, "loop_instructions": 0.0, "spill_bytes": 0.0}
    columns = race.table.columns | {name: np.full(len(race.table), value) for name, value in unknown.items()}
    return dataclasses.replace(race, table=dataclasses.replace(race.table, columns=columns))


def layers(tables: Tables) -> list[str]:
    """Whole layers at the two fixed tiles that benchmarks/gpu.py times, by type."""
    chip = load_chip(CHIP)
    wrong: dict[str, list[float]] = defaultdict(list)
    for one in json.loads((RESULTS / "gpu" / f"{STEM}.json").read_text())["results"]:
        if one["path"] not in ("plain", "descriptors") or one["latency_us"] is None:
            continue
        hidden, width, experts, top_k, ranks = LAYERS[one["model"]]
        shape = MoEShape(
            hidden_size=hidden, moe_intermediate_size=width, num_experts=experts, num_experts_per_tok=top_k
        )
        workload = Workload(
            name="layer",
            num_tokens=one["tokens"],
            dtype=one["dtype"],
            ep=ranks,
            routing=Routing.parse("balanced" if ranks > 1 else "uniform"),
        )
        rows = max(16, min(128, 1 << (one["tokens"] * top_k // experts).bit_length()))
        tile = TritonTile(
            block_m=min(rows, 64), block_n=64, block_k=64, num_warps=4, num_stages=3, tma=one["path"] == "descriptors"
        )
        timing = estimate_layer(tables, chip, rank_work(shape, workload), tiles=(tile, tile)).timing
        wrong[one["dtype"]].append(timing.latency_us / one["latency_us"] - 1.0)
    lines = ["| type | layers | error, mean | median | bias |", "|---|---|---|---|---|"]
    for dtype, some in wrong.items():
        error = np.abs(some)
        lines.append(f"| {dtype} | {len(some)} | {error.mean():.1%} | {np.median(error):.1%} | {np.mean(some):+.1%} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2)
    jobs = parser.parse_args().jobs
    chip = load_chip(CHIP)
    first = read_races(RESULTS / "gpu" / f"{STEM}_tiles.csv.gz", chip, jobs=jobs)
    second = read_races(RESULTS / "gpu" / f"{STEM}_tiles_unseen.csv.gz", chip, jobs=jobs)
    fitted, _ = calibrate(chip, first, "", Coefficients())
    assert fitted.file is not None
    blind = judge((fitted, 0.0), second)
    both = [*first, *second]
    whole, judged = calibrate(chip, both, "", Coefficients())
    assert whole.file is not None

    def physics_only(races: Sequence[Race]) -> tuple[Native, float]:
        x, dirty = fit_physics(races, whole.coefficients)
        return Native(x, None, None), dirty

    bare = left_out([without_facts(race) for race in both], physics_only)
    known = left_out(both, physics_only)
    _, dirty = fit_physics(both, whole.coefficients)
    text = [
        "# The cost model of our own kernels against an H100",
        "",
        "Made by `python benchmarks/accuracy/native.py` from results/gpu (`benchmarks/gpu_tiles.py` on an NVIDIA H100",
        f"80GB HBM3, triton 3.6.0); the binaries' facts are of {compiler_version('triton')}, compiled without a GPU.",
        "",
        "A race is one GEMM of a model's layer, on one rank, with every tile of the kernel (a share of them in types",
        "other than bfloat16), each verified against float64. *Error*: of the times of tiles up to 1.5 times the",
        "fastest, mean. *Regret*: the time of the tile that the model names the best over the fastest, less one.",
        *by_dtype("Models that were raced after the fit", blind, fitted.file.log_width),
        "\nThe fit is of the first table. These were measured with another flush of the L2 as well: the first by",
        f"writing, after which dirty lines are written back on the clock (fitted: {dirty:.2f} of the L2).",
        *by_dtype("Both tables, each shape by a fit without it", judged, whole.file.log_width),
        "\nThe widths of these intervals are taken from these very errors, so that they hold 90 % of them by construction;",
        "above they were fixed before.",
        "\n## What its parts are worth (each shape left out)\n",
        HEAD,
        line("physics and trees", judged),
        line("physics", known, physics=True),
        line("physics, without the binaries' facts", bare, physics=True),
        "\n## Whole layers\n",
        "Of benchmarks/gpu.py, at its two fixed tiles (`plain`, `descriptors`). No time of a layer was fitted.",
        "",
        *layers(Tables(jobs=jobs)),
    ]
    out = RESULTS / "accuracy" / "native.md"
    out.write_text("\n".join(text) + "\n")
    print(out.read_text())


if __name__ == "__main__":
    main()
