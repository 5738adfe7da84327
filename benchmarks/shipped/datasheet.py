"""Fit what a data sheet's roofline lacks (cost/datasheet.py, LAYER) to NVIDIA's measured layers; prints it.

    pip install aiconfigurator-core==0.12.0
    python benchmarks/shipped/datasheet.py

700 rows of each chip, stack and type are drawn with seed 0; those on one rank are fitted, all chips weighing the same.
The slowdown of compute is given: the median of time over roofline of all rows.
"""

import argparse
import itertools
import random

import numpy as np

from moe_codesign.chips import GpuChip, load_chip
from moe_codesign.cost.bound import layer_bound
from moe_codesign.cost.datasheet import HIGH, LAYER
from moe_codesign.domain.rank import rank_work
from moe_codesign.formats.aiconfigurator import SETS, aiconfigurator_rows, renamed
from moe_codesign.formats.problem_rows import measured_layer

ROWS = 700
MEMORY = np.arange(1.0, 2.0, 0.05)
FIXED_US = np.arange(20.0, 60.0, 2.0)


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    chance = random.Random(0)  # noqa: S311
    found = []
    for name, stack, dtype in SETS:
        chip = GpuChip.of(load_chip(name))
        rows, _ = aiconfigurator_rows(chip, stack, dtype)
        for row in map(renamed, chance.sample(rows, min(len(rows), ROWS))):
            if row["ep"] == 1:
                bound = layer_bound(chip, rank_work(*measured_layer(row, dtype)))
                found.append((name, bound.compute_us, bound.memory_us, row["latency_us"]))
    names = np.array([name for name, *_ in found])
    compute, memory, measured = np.array([times for _, *times in found]).T
    weight = 1 / np.array([(names == name).sum() for name in names])

    def estimate(memory_slowdown: float, fixed_us: float) -> np.ndarray:
        return np.asarray(np.maximum(LAYER.compute * compute, memory_slowdown * memory) + fixed_us)

    def error(both: tuple[float, float]) -> float:
        return float(np.average(np.abs(np.log(estimate(*both) / measured)), weights=weight))

    best = min(itertools.product(MEMORY, FIXED_US), key=error)
    ratio = measured / estimate(*best)
    low, middle, high = np.quantile(ratio, (0.05, 0.5, 0.95))
    print(f"{len(found)} rows on one rank: memory {best[0]:.2f}, fixed_us {best[1]:.0f}, mean |log| {error(best):.3f}")
    print(f"measured over estimated: median {middle:.2f}, nine of ten {low:.2f} to {high:.2f}")
    plain = np.average(np.abs(np.log(LAYER.compute * np.maximum(compute, memory) / measured)), weights=weight)
    print(f"below the interval's upper end: {(ratio < HIGH).mean():.1%}")
    print(f"the roofline times {LAYER.compute} alone: mean |log| {plain:.3f}")


if __name__ == "__main__":
    main()
