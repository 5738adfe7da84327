"""tokamax's gmm_v2 in time, from what gmm_v2_counts.py counted of it."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
from problems import Problem, bytes_per_us, cycles_per_us

from moe_codesign.chips import TpuChip
from moe_kernels import kernel as kernels
from moe_kernels.pallas.tile_limits import most_bundles, program_bundles
from moe_kernels.tile import WHOLE_DEPTH, PallasTile

COUNTS = Path(__file__).parents[2] / "results" / "tpu_gmm_v2.json"


BLOCK = 16
"""Rows that its blocks are cut by."""


class GmmV2:
    """Its times on one chip (``transposed``: of the gradient to the rows), by those counts."""

    def __init__(self, chip: TpuChip, *, transposed: bool = False) -> None:
        found = json.loads(COUNTS.read_text(encoding="utf-8"))[chip.name + " transposed" * transposed]
        self.chip = chip
        self.base = 256 if transposed else 128
        self.issue = float(found["issue_bundles"])
        self.defaults: dict[str, dict[str, int]] = found["default_tiles"]
        self.counts: dict[tuple[int, ...], float] = {
            tuple(map(int, point.split("x"))): value
            for point, value in found["cycles by tile_n x K x buckets"].items()
            if not isinstance(value, str)
        }

    def cycles(self, tile_n: int, k: int, buckets: np.ndarray) -> np.ndarray:
        """Cycles of one visit, by its buckets; not a number where a count is missing."""
        depths = sorted(
            {depth for width, depth, _ in self.counts if width == tile_n and (depth == k or not depth % 128)}
        )
        depths = [k] if k in depths and k % 128 else depths[:2]
        few, many = ([self.counts.get((tile_n, depth, b), math.nan) for depth in depths] for b in (1, 4))
        if not depths or (k % 128 and k not in depths):
            return np.full(len(buckets), math.nan)
        if len(depths) == 2:
            along = (k - depths[0]) / (depths[1] - depths[0])
            few, many = ([a[0] + (a[1] - a[0]) * along] for a in (few, many))
        return few[0] + (many[0] - few[0]) / 3 * (buckets - 1) + self.issue

    def us(self, problem: Problem, tile_m: int, tile_n: int) -> float:
        some = np.flatnonzero(problem.sizes)
        starts = (np.cumsum(problem.sizes) - problem.sizes)[some]
        ends = starts % BLOCK + problem.sizes[some]
        counts = -(-ends // tile_m)
        group = np.repeat(np.arange(len(some)), counts)
        place = np.arange(len(group)) - np.repeat(np.cumsum(counts) - counts, counts)
        rows = np.minimum(ends[group] - place * tile_m, tile_m)
        buckets = np.minimum(rows // self.base + 1, tile_m // self.base)
        columns = math.ceil(problem.n / tile_n)
        compute = self.cycles(tile_n, problem.k, buckets) / cycles_per_us(self.chip)
        blocks = np.ceil(rows / BLOCK) * BLOCK
        first = np.flatnonzero(place == 0)
        width = problem.n / columns
        moved = 2.0 * (np.add.reduceat(blocks, first) * (problem.k + width) + problem.k * width)
        per_us = bytes_per_us(self.chip)
        start = 2.0 * problem.k * (width + float(blocks[0])) / per_us
        return start + columns * float(np.maximum(np.add.reduceat(compute, first), moved / per_us).sum())

    def default_tile(self, problem: Problem) -> tuple[int, int]:
        tile = self.defaults[f"{problem.k}x{problem.n}"]
        return tile["tile_m"], tile["tile_n"]

    def default(self, problem: Problem) -> float:
        return self.us(problem, *self.default_tile(problem))

    def best(self, problem: Problem, *, held: bool = False) -> tuple[float, str]:
        """The fastest of visits of 128 to 512 rows and the widths that fit in VMEM, its default's among them.

        ``held``: only those whose program is known to run at full speed.
        """
        default = self.default_tile(problem)
        room = 0.9 * self.chip.core.vmem_bytes
        found: list[tuple[float, bool, int, int]] = []
        for tile_m, tile_n in itertools.product((128, 256, 384, 512), {256, 512, 1024, 2048, default[1]}):
            k = -(-problem.k // 128) * 128
            needs = 2 * (2 * tile_m * k + 3 * k * tile_n + 2 * tile_m * tile_n) + 4 * tile_m * tile_n
            fits = needs <= room and (tile_n <= problem.n or tile_n == default[1])
            if fits or (tile_m, tile_n) == default:
                us = round(self.us(problem, tile_m, tile_n), 3)
                found.append((us, self.is_large(problem, tile_m, tile_n), tile_m, tile_n))
        known = [one for one in found if math.isfinite(one[0]) and not (held and one[1])]
        us, large, tile_m, tile_n = min(known)
        return us, f"{tile_m}x{tile_n}" + "*" * large

    def is_large(self, problem: Problem, tile_m: int, tile_n: int) -> bool:
        """Its program, which has code for every number of buckets, is over the largest known to run at full speed."""
        buckets = tile_m // self.base
        rows = self.base * buckets * (buckets + 1) // 2
        code = PallasTile(tile_m=rows, tile_k=WHOLE_DEPTH, tile_n=tile_n, bucket_m=rows)
        whole = kernels.Problem(op="down", dtype="bfloat16", k=problem.k, n=-(-problem.n // 128) * 128)
        target = str(self.chip.target)
        return program_bundles(whole, code, target) > most_bundles(target)
