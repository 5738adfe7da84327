"""Write the default rule of the Triton kernels: for each family of chips the tiles that lose least untuned.

Compiles the kernel's tile spaces for one chip of each family, asks the cost model for every tile's time on the GEMMs of
every catalogue model at several rows per expert, and keeps per range of rows the tile with the smallest mean loss
against the best tile of each problem. Takes most of an hour on two cores where nothing is compiled yet.

    python benchmarks/default_tiles.py [--jobs N] [--chips h100_sxm,b200]
"""

import argparse
import itertools
import json
from pathlib import Path

import numpy as np

from moe_codesign.chips import Chip, load_chip
from moe_codesign.compiler import ArtifactCache, compile_all, requests_for
from moe_codesign.compiler.kernels import kernel_for
from moe_codesign.compiler.tile_table import table_of
from moe_codesign.cost.ours.model import rank_tiles
from moe_codesign.domain.grouped_gemm import GroupedGemm
from moe_codesign.models import models
from moe_codesign.versions import compiler_version
from moe_kernels.kernel import Kernel, Op, Problem
from moe_kernels.tile import TileConfig
from moe_kernels.triton.tiles import ROW_STEPS, family, width_class

OUT = Path(__file__).parents[1] / "kernels" / "moe_kernels" / "triton" / "default_tiles.json"
CHIPS = ("a100_sxm", "l40s", "h100_sxm", "b200", "mi300x", "mi355x")
DTYPES = {"16": "bfloat16", "8": "fp8_block", "4": "mxfp4"}
"""The type that stands for a width: of the 8-bit ones the one with most registers."""
RANKS = (1, 8)
"""That share the experts."""
ROWS = ((1, 3), (6, 11), (14, 22), (28, 44), (60, 90), (150, 400), (1000, 4000))
"""Mean rows per expert that stand for each range of ROW_STEPS."""


def best_tiles(chip_name: str, dtype: str, op: Op, cache: ArtifactCache, jobs: int) -> list[dict[str, int | bool]]:
    chip = load_chip(chip_name)
    kernel = kernel_for(chip)
    problem = Problem(op=op, dtype=dtype)
    every = [tile for tile in kernel.tiles() if kernel.refuses(problem, tile, chip.target) is None]
    requests = requests_for(kernel, chip, (op,), dtype, every)
    outcomes = compile_all(requests.values(), cache, jobs=jobs)
    table = table_of(kernel, chip, op, {tile: outcomes[r] for (_, tile), r in requests.items()})
    usable = table.columns["spill_bytes"] == 0
    chosen = []
    for rows in ROWS:
        losses = []
        for shape in models().values():
            if shape.gated != (op == "gate_up") and op != "down":
                continue
            k, n = shape.hidden_size, shape.moe_intermediate_size
            k, n = (n, k) if op == "down" else (k, n)
            for ranks, count in itertools.product(RANKS, rows):
                counts = max(shape.num_experts // ranks, 1)
                # As a router's choices fall that favours none.
                each = np.random.default_rng(0).poisson(count, counts)
                each[0] = max(each[0], 1)
                gemm = GroupedGemm(op, each, k, n, int(each.sum()), dtype, accumulates=op == "down")
                times = np.where(usable, rank_tiles(table, gemm).total_us, np.inf)
                fits = [kernel.refuses(gemm.problem, t, chip.target) is None for t in table.tiles]
                times = np.where(fits, times, np.inf)
                if np.isfinite(times).any():
                    losses.append(np.log(times / times.min()))
        mean = np.mean(losses, axis=0)
        best = next(int(i) for i in mean.argsort() if _fits_its_width(kernel, chip, op, dtype, table.tiles[i], cache))
        print(f"{chip_name} {dtype} {op} {rows}: {table.tiles[best].label()}, {np.exp(mean[best]):.3f} of the best")
        chosen.append(table.tiles[best].as_dict())
    assert len(chosen) == len(ROW_STEPS) + 1
    return chosen


def _fits_its_width(kernel: Kernel, chip: Chip, op: Op, dtype: str, tile: TileConfig, cache: ArtifactCache) -> bool:
    """Whether the other types of the width take the tile too, without spilling."""
    for other in kernel.dtypes:
        if other == dtype or width_class(other) != width_class(dtype) or not chip.has(other):
            continue
        if kernel.refuses(Problem(op=op, dtype=other), tile, chip.target) is not None:
            continue  # a call falls back on a simpler form
        requests = requests_for(kernel, chip, (op,), other, [tile])
        outcomes = compile_all(requests.values(), cache)
        table = table_of(kernel, chip, op, {one: outcomes[r] for (_, one), r in requests.items()})
        if not len(table) or table.columns["spill_bytes"][0] > 0:
            return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--chips", default=",".join(CHIPS), help="whose families to write; the others stay")
    options = parser.parse_args()
    jobs = options.jobs
    cache = ArtifactCache()
    rule: dict[str, dict[str, dict[str, list[dict[str, int | bool]]]]] = json.loads(OUT.read_text())["tiles"]
    steps: dict[str, list[int]] = json.loads(OUT.read_text())["row_steps"]
    for chip_name in options.chips.split(","):
        chip = load_chip(chip_name)
        by_width = rule.setdefault(family(chip.target), {})
        for width, dtype in DTYPES.items():
            stand_in = dtype if chip.has(dtype) else "int8"
            assert width_class(stand_in) == width
            ops: tuple[Op, ...] = ("gate_up", "down")
            by_width[width] = {op: best_tiles(chip_name, stand_in, op, cache, jobs) for op in ops}
        steps[family(chip.target)] = list(ROW_STEPS)
        made = {"made_with": compiler_version("triton"), "row_steps": steps, "tiles": rule}
        OUT.write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
