"""Our grouped matmul on TPUs beside jax's megablox ``gmm`` and tokamax's gmm_v2: writes results/tpu_megablox.md.

All are compiled for the chip by libtpu; nothing runs on a TPU. A visit (rows of one group, one column tile) takes
the longer of its cycles by the compiler's static profile and of what its bytes take from HBM; group sizes say how many
visits there are. The two profiles differ: ours is of the kernel without its copies, to which the bundles that start
and await them are added; megablox' is of its own kernel, copies as the compiler sees them, with the number of its
visits and the places of their blocks fixed: every visit of one group, so that weights are fetched again only where
megablox fetches them again (more than one tile of K). megablox has the compiler's default share of VMEM, since its
function takes no other; ours asks for all of it. The compiler's profile for tpu7x aborts on many of its tiles that cut
K ("Cannot schedule FIFO push"): they have no count.

gmm_v2 was counted by gmm_v2_counts.py: its inner kernel with whole K, and the bundles of its loop around it;
weights stay while their group's rows pass. Ours has a grid's loop, and filling and draining its buffers is counted in
every visit. No count says how slow programs are that are larger than the largest known to run at full
speed (moe_kernels.pallas.tile_limits): ours are held to that; of gmm_v2 both are given, the best tile is marked * where
it is larger.

Rows past the groups are not cleared. Each is at its best tile of the search below; megablox and gmm_v2 also at their
default tiles. One core of each chip.

    python benchmarks/tpu/compare.py [--chips tpu_v6e,tpu7x]     about 40 minutes per chip on two cores
"""

import argparse
import dataclasses
import itertools
import json
import math
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
from gmm_v2 import COUNTS, GmmV2
from megablox import Tile, at_depth, count, depths, form_of, megablox_us, visit_cycles
from problems import ROWS, Problem, bound_us, geometric_mean, one_core, problems

from moe_codesign.chips import TpuChip, load_chip
from moe_codesign.compiler.kernels import kernel_for
from moe_codesign.compiler.tile_table import Tables
from moe_codesign.cost.ours.tpu import tile_times
from moe_codesign.domain.grouped_gemm import GroupedGemm
from moe_codesign.versions import compiler_version

OUT = Path(__file__).parents[2] / "results" / "tpu_megablox.md"
DEFAULT = (128, 128, 128)
LARGEST = 2**32
"""Products tm x tk x tn beyond this fill programs of over 40,000 bundles, minutes of compiling each."""


def tiles(problem: Problem) -> list[Tile]:
    """megablox' search: tiles up to the whole K and N; its rows are cut evenly."""
    tm = [t for t in (64, 128, 256, 512, 1024) if problem.m % t == 0]
    tk = sorted({min(t, problem.k) for t in (512, 1024, 2048, problem.k)})
    tn = sorted({min(t, problem.n) for t in (256, 512, 1024, 2048)})
    every = itertools.product(tm, tk, tn)
    return [*(tile for tile in every if math.prod(tile) <= LARGEST), DEFAULT]


def our_us(tables: Tables, whole: TpuChip, chip: TpuChip, problem: Problem) -> tuple[float, str]:
    """Our best tile's time and label."""
    kernel = kernel_for(whole)
    table = tables.get(whole, kernel, "down")
    gemm = GroupedGemm("down", problem.sizes, problem.k, problem.n, problem.m, "bfloat16", accumulates=False)
    times = tile_times(dataclasses.replace(table, chip=chip), gemm).total_us
    times[list(table.unsupported(gemm.problem))] = np.inf
    best = int(np.argmin(times))
    return float(times[best]), table.tiles[best].label()


def compare(name: str) -> list[str]:
    whole = TpuChip.of(load_chip(name))
    chip = one_core(whole)
    every = problems()
    forms = {form_of(t, p.k, d) for p in every for t in tiles(p) for d in depths(t, p.k)}
    ordered = sorted(forms, key=lambda f: f.tm * f.tk * f.tn * f.depth)
    found = count(whole, {repr(form): (visit_cycles, [str(whole.target), form]) for form in ordered})
    refused = dict(Counter(value for value in found.values() if isinstance(value, str)))
    tables = Tables(jobs=2)
    gmm_v2 = GmmV2(chip)
    lines = []
    ratios: dict[str, list[float]] = defaultdict(list)
    for p in every:
        best: tuple[float, Tile] = (math.inf, DEFAULT)
        default = math.nan
        for tile in tiles(p):
            parts = [found[repr(form_of(tile, p.k, d))] for d in depths(tile, p.k)]
            if any(isinstance(part, str) for part in parts):
                continue
            us = megablox_us(chip, p, tile, at_depth([float(part) for part in parts], tile, p.k))
            best = min(best, (us, tile))
            default = us if tile == DEFAULT else default
        ours, label = our_us(tables, whole, chip, p)
        theirs, their_tile = gmm_v2.best(p)
        bound = bound_us(chip, p)
        for which, us in (
            ("megablox", best[0]),
            ("megablox by default", default),
            ("gmm_v2", theirs),
            ("gmm_v2 of programs held to that size", gmm_v2.best(p, held=True)[0]),
            ("gmm_v2 by default", gmm_v2.default(p)),
            ("the bound", bound),
        ):
            ratios[which].append(us / ours)
        lines.append(
            f"| {p.model} | {p.projection} | {p.m} | {label} | {ours:.1f} | {'x'.join(map(str, best[1]))} "
            f"| {best[0]:.1f} | {best[0] / ours:.2f} | {default / ours:.2f} | {their_tile} | {theirs:.1f} "
            f"| {theirs / ours:.2f} | {ratios['gmm_v2 by default'][-1]:.2f} | {bound / ours:.0%} |"
        )

    def summary(which: str) -> str:
        values = ratios[which]
        means = [geometric_mean([r for r, p in zip(values, every, strict=True) if p.m == m]) for m in ROWS]
        return "| " + " | ".join([which, *(f"{x:.2f}" for x in (geometric_mean(values), *means, min(values)))]) + " |"

    return [
        f"## {name}, one core",
        "",
        f"Their time over ours, geometric means over {len(every)} problems. Forms of megablox compiled: {len(found)}, "
        f"without a count: {refused or 'none'}.",
        "",
        "| | all | " + " | ".join(f"{m} rows" for m in ROWS) + " | least |",
        "|---|---|---|---|---|---|",
        *map(summary, ratios),
        "",
        "| model | projection | rows | our tile | ours us | megablox' tile | megablox us | over ours | its default "
        "| gmm_v2's tile | gmm_v2 us | over ours | its default | the bound over ours |",
        "|" + "---|" * 14,
        *lines,
        "",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chips", default="tpu_v6e,tpu7x")
    chips = parser.parse_args().chips.split(",")
    lines = ["\n".join(compare(name)) for name in chips]
    made_with = ", ".join(
        f"{name} {number}" for name, number in json.loads(COUNTS.read_text(encoding="utf-8"))["made_with"].items()
    )
    OUT.write_text(
        "# Grouped matmuls on TPUs: ours beside megablox and gmm_v2\n\n"
        f"Made by `python benchmarks/tpu/compare.py` with {compiler_version('pallas')}; compiled cycles, nothing was "
        "run on a TPU. bfloat16 forward, one matrix, rows given to groups at random. How each number is made stands at "
        f"the head of the script; gmm_v2 with {made_with}. The bound: matrix units full at the compiler's cycles per "
        "nanosecond, or every byte moved once; no kernel can be faster in these counts.\n\n" + "\n".join(lines),
        encoding="utf-8",
    )
    print(OUT.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
