"""The default rule of the Triton kernels: for each family of chips the tiles that lose least untuned.

The kernel's tile spaces are compiled for one chip of each family. The cost model is asked for every tile's time on the
GEMMs of every catalogue model at several rows per expert, and for each range of rows the tile is kept whose mean loss
against the best tile of each problem is smallest.
"""

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from moe_codesign.chips import Chip, GpuChip, load_chip
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

Said = Callable[[str], None]
CHIPS = ("a100_sxm", "l40s", "h100_sxm", "b200", "mi300x", "mi355x")
DTYPES = {"16": "bfloat16", "8": "fp8_block", "4": "mxfp4"}
"""The type that stands for a width: of the 8-bit ones the one with most registers."""
RANKS = (1, 8)
"""Ranks that share the experts."""
ROWS = ((1, 3), (6, 11), (14, 22), (28, 44), (60, 90), (150, 400), (1000, 4000))
"""Mean rows per expert that stand for each range of ROW_STEPS."""


def best_tiles(
    chip: Chip, dtype: str, op: Op, cache: ArtifactCache, *, jobs: int = 1, said: Said | None = None
) -> list[TileConfig]:
    """For each range of rows the tile that loses least over the catalogue's models.

    Args:
        chip: whose tiles.
        dtype: data type of the weights.
        op: which GEMM.
        cache: compiled tiles.
        jobs: compiler processes.
        said: called with one line for each range.

    Returns:
        A tile for each range of ROW_STEPS, the last one for all rows beyond.
    """
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
            k, n = shape.expert_hidden_size, shape.moe_intermediate_size
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
        if said:
            said(f"{chip.name} {dtype} {op} {rows}: {table.tiles[best].label()}, {np.exp(mean[best]):.3f} of the best")
        chosen.append(table.tiles[best])
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


def write_rule(path: Path, chips: Sequence[str], *, jobs: int = 1, said: Said | None = None) -> None:
    """Choose the tiles of those chips' families and write them into the rule; other families stay as they are.

    The file is written after each chip: one takes most of an hour on two cores where nothing is compiled yet.
    """
    cache = ArtifactCache()
    before = json.loads(path.read_text(encoding="utf-8"))
    rule: dict[str, dict[str, dict[str, list[dict[str, int | bool]]]]] = before["tiles"]
    steps: dict[str, list[int]] = before["row_steps"]
    for name in chips:
        chip = GpuChip.of(load_chip(name))
        by_width = rule.setdefault(family(chip.target), {})
        for width, dtype in DTYPES.items():
            stand_in = dtype if chip.has(dtype) else "int8"
            ops: tuple[Op, ...] = ("gate_up", "down")
            by_width[width] = {
                op: [tile.as_dict() for tile in best_tiles(chip, stand_in, op, cache, jobs=jobs, said=said)]
                for op in ops
            }
        steps[family(chip.target)] = list(ROW_STEPS)
        made = {"made_with": compiler_version("triton"), "row_steps": steps, "tiles": rule}
        path.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
