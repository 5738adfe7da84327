"""How right the cost model of our own kernels is on the GPU whose tiles were raced: writes results/accuracy/ours.md.

Fits the first table of races and judges it by the second, which was measured after that fit and of other models; fits
both and judges every shape by the others; asks what the binaries' facts and the trees are worth; and predicts the whole
layers that benchmarks/gpu/layers.py timed. A quarter of an hour where the tiles are compiled, half an hour where not.

    python benchmarks/accuracy/ours.py [--jobs 2]
"""

import argparse
import dataclasses
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from moe_codesign.chips import GpuChip, load_chip
from moe_codesign.compiler.tile_table import Tables
from moe_codesign.cost.ours.learned import OurModel
from moe_codesign.cost.ours.model import estimate_layer
from moe_codesign.domain.pair import Pair
from moe_codesign.domain.rank import rank_work
from moe_codesign.domain.routing import Uniform
from moe_codesign.domain.shape import MoEShape
from moe_codesign.domain.tile_pair import TilePair
from moe_codesign.domain.token_counts import token_counts
from moe_codesign.domain.workload import Workload
from moe_codesign.fitting.ours import START, Judged, calibrate, fit_physics, judge, without_trees
from moe_codesign.fitting.races import Race, read_races
from moe_codesign.versions import compiler_version
from moe_kernels.tile import TritonTile

RESULTS = Path(__file__).parents[2] / "results"
STEM = "NVIDIA_H100_80GB_HBM3"
CHIP = "h100_sxm"
LAYERS = {
    # hidden_size, moe_intermediate_size, experts of all ranks, top_k, ranks: as benchmarks/gpu/layers.py times them
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
    figures = (errors.mean(), losses.mean(), losses.max(), np.mean(losses == 0))
    return f"| {name} | {len(judged)} | " + " | ".join(f"{value:.1%}" for value in figures) + f" | {inside} |"


def by_dtype(title: str, judged: Sequence[Judged], widths: dict[str, float]) -> list[str]:
    kinds: dict[str, list[Judged]] = defaultdict(list)
    for one in judged:
        kinds[one.race.gemm.dtype].append(one)
    rows = [line(dtype, some, widths.get(dtype)) for dtype, some in sorted(kinds.items())]
    return [f"\n## {title}\n", HEAD, *rows, line("all, physics alone", judged, physics=True)]


def left_out(races: Sequence[Race], fit: Callable[[Sequence[Race]], tuple[OurModel, float]]) -> list[Judged]:
    """A quarter of the shapes at a time."""
    shapes, found = sorted({race.shape for race in races}), []
    for part in range(4):
        others, own = ([r for r in races if (r.shape in shapes[part::4]) == here] for here in (False, True))
        found += judge(fit(others), own)
    return found


def default_rule(races: Sequence[Race]) -> list[str]:
    """What an untuned call's tile loses to the fastest of the race."""
    losses: dict[str, list[float]] = defaultdict(list)
    untimed = 0
    for race in races:
        tile = race.table.kernel.default_tile(race.gemm.problem, race.mean_rows, race.table.chip.target)
        place = race.table.index(tile)
        if place is None:
            untimed += 1
        else:
            losses[race.gemm.dtype].append(race.latency_us[place] / race.latency_us.min() - 1.0)
    every = [loss for some in losses.values() for loss in some]
    lines = ["| type | GEMMs | loss, mean | worst |", "|---|---|---|---|"]
    for name, some in [*sorted(losses.items()), ("all", every)]:
        lines.append(f"| {name} | {len(some)} | {np.mean(some):.1%} | {max(some):.1%} |")
    return [*lines, "", f"Of {untimed} GEMMs the rule's tile was not timed."]


def without_facts(race: Race) -> Race:
    """As a tuner may assume who has no binary: as many registers as there are, and nothing but products."""
    unknown = {"registers": 255.0, "shared_bytes": 0.0, "loop_instructions": 0.0, "spill_bytes": 0.0}
    columns = race.table.columns | {name: np.full(len(race.table), value) for name, value in unknown.items()}
    return dataclasses.replace(race, table=dataclasses.replace(race.table, columns=columns))


def layers(tables: Tables) -> list[str]:
    """Whole layers at the two fixed tiles that benchmarks/gpu/layers.py times, by type."""
    chip = GpuChip.of(load_chip(CHIP))
    wrong: dict[str, list[float]] = defaultdict(list)
    inside: dict[str, list[bool]] = defaultdict(list)
    for one in json.loads((RESULTS / "gpu" / f"{STEM}.json").read_text(encoding="utf-8"))["results"]:
        if one["path"] not in ("plain", "descriptors") or one["latency_us"] is None:
            continue
        hidden, width, experts, top_k, ranks = LAYERS[one["model"]]
        shape = MoEShape(
            hidden_size=hidden, moe_intermediate_size=width, num_experts=experts, num_experts_per_tok=top_k
        )
        workload = Workload(name="layer", num_tokens=one["tokens"], dtype=one["dtype"], ep=ranks, seed=0)
        # The first rank's, of a router that favours none: rank_work alone would take the busiest rank.
        counts = token_counts(Uniform(), one["tokens"], experts, top_k)[: experts // ranks]
        work = dataclasses.replace(rank_work(shape, workload), rows=counts)
        rows = max(16, min(128, 1 << (one["tokens"] * top_k // experts).bit_length()))
        tile = TritonTile(
            block_m=min(rows, 64), block_n=64, block_k=64, num_warps=4, num_stages=3, tma=one["path"] == "descriptors"
        )
        timing = estimate_layer(tables, chip, work, tiles=TilePair(tile, tile)).timing
        wrong[one["dtype"]].append(timing.latency_us / one["latency_us"] - 1.0)
        inside[one["dtype"]].append(timing.low_us <= one["latency_us"] <= timing.high_us)
    lines = ["| type | layers | error, mean | median | bias | within the interval |", "|---|---|---|---|---|---|"]
    for dtype, some in wrong.items():
        error = np.abs(some)
        figures = f"{error.mean():.1%} | {np.median(error):.1%} | {np.mean(some):+.1%} | {np.mean(inside[dtype]):.0%}"
        lines.append(f"| {dtype} | {len(some)} | {figures} |")
    return lines


def searched(tables: Tables) -> list[str]:
    """Pairs that a search proposed, with their measured times."""
    chip = GpuChip.of(load_chip(CHIP))
    lines = ["| shape | workload | tiles | measured us | predicted us | |", "|---|---|---|---|---|---|"]
    wrong, inside = [], []
    for data in json.loads((RESULTS / "gpu" / f"{STEM}_search.json").read_text(encoding="utf-8"))["pairs"]:
        pair = Pair.from_dict({name: value for name, value in data.items() if name not in ("mode", "trial")})
        tiles = pair.tiles
        assert tiles is not None
        timing = estimate_layer(tables, chip, rank_work(pair.shape, pair.workload), tiles=tiles).timing
        wrong.append(timing.latency_us / pair.timing.latency_us - 1.0)
        inside.append(timing.low_us <= pair.timing.latency_us <= timing.high_us)
        size = (pair.shape.moe_intermediate_size, pair.shape.num_experts, pair.shape.num_experts_per_tok)
        lines.append(
            f"| I{size[0]} E{size[1]} k{size[2]} | {pair.workload.name} | {' and '.join(t.label() for t in tiles)} "
            f"| {pair.timing.latency_us:.0f} | {timing.latency_us:.0f} | {wrong[-1]:+.1%} |"
        )
    error = np.abs(wrong)
    summary = f"{error.mean():.1%} in the mean, {np.median(error):.1%} in the median"
    return [*lines, "", f"Error {summary}; {sum(inside)} of {len(inside)} within the interval."]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    jobs = options.jobs
    chip = GpuChip.of(load_chip(CHIP))
    first = read_races(RESULTS / "gpu" / f"{STEM}_tiles.csv.gz", chip, jobs=jobs)
    second = read_races(RESULTS / "gpu" / f"{STEM}_tiles_unseen.csv.gz", chip, jobs=jobs)
    fitted, _ = calibrate(chip, first, "", START)
    blind = judge((OurModel(fitted, CHIP), 0.0), second)
    both = [*first, *second]
    whole, judged = calibrate(chip, both, "results/gpu", START)

    def physics_only(races: Sequence[Race]) -> tuple[OurModel, float]:
        return without_trees(chip, races, START)

    bare = left_out([without_facts(race) for race in both], physics_only)
    known = left_out(both, physics_only)
    _, dirty = fit_physics(both, START)
    text = [
        "# The cost model of our own kernels against an H100",
        "",
        "Made by `python benchmarks/accuracy/ours.py` from results/gpu (`benchmarks/gpu/tiles.py` on an NVIDIA H100",
        f"80GB HBM3, triton 3.6.0); the binaries' facts are of {compiler_version('triton')}, compiled without a GPU.",
        "",
        "A race is one GEMM of a model's layer, on one rank, with the kernel's tiles (a share of them in types other",
        "than bfloat16; those that were kept, and whose block_k divides K: results/gpu/README.md), each verified",
        "against float64. *Error*: of the times of tiles up to 1.5 times the fastest, mean. *Regret*: the time of the",
        "tile that the model names the best over the fastest of the race, less one.",
        *by_dtype("Models that were raced after the fit", blind, fitted.file.log_width),
        "\nThe fit is of the first table. These were measured with another flush of the L2 as well: the first by",
        f"writing, after which dirty lines are written back on the clock (fitted: {dirty:.2f} of the L2).",
        *by_dtype("Both tables, each shape by a fit without it", judged, whole.file.log_width),
        "\nThe widths of these intervals are of these very errors, so that they hold 90 % of them by construction;",
        "above they were fixed before. Types that were raced with one shape have none, nor trees: physics answers.",
        "\n## What its parts are worth (shapes left out; physics by quarters)\n",
        HEAD,
        line("physics and trees", judged),
        line("physics", known, physics=True),
        line("physics, without the binaries' facts", bare, physics=True),
        "\n## The default rule\n",
        "What the tile of an untuned call loses. The rule is chosen by the model, over the catalogue's models and not",
        "over these problems (benchmarks/shipped/default_tiles.py); the model was fitted to these races.",
        "",
        *default_rule(both),
        "\n## Whole layers\n",
        "Timed by benchmarks/gpu/layers.py at its two fixed tiles (`plain`, `descriptors`). No layer time was fitted.",
        "",
        *layers(Tables(jobs=jobs)),
        "\n## What a search measured\n",
        "Every layer of `moe-codesign search quickstart --chips h100_sxm --trials 24` on the device: shapes that",
        "Optuna proposed near Qwen3-30B-A3B (the last two rows: the only ones of a shape that was raced), tiles by it",
        "or by the first fit.",
        "",
        *searched(Tables(jobs=jobs)),
    ]
    out = RESULTS / "accuracy" / "ours.md"
    out.write_text("\n".join(text) + "\n", encoding="utf-8")
    print(out.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
