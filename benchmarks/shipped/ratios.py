"""Fit how far two times of one model err apart, to measured times of shapes in no fit; writes calibrations/ratios.toml.

    pip install aiconfigurator-core==0.12.0; python benchmarks/shipped/ratios.py      half an hour on two cores

What the laws hold: benchmarks/accuracy/ratio_coverage.py.
"""

import argparse
import math
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from moe_codesign.calibrations.catalogue import UNKNOWN_INTERVAL
from moe_codesign.calibrations.file import write
from moe_codesign.calibrations.ratios import FILE, RatioFile
from moe_codesign.chips import GpuChip, load_chip
from moe_codesign.compiler.tile_table import Tables
from moe_codesign.cost.ours import shipped
from moe_codesign.cost.ours.learned import LAYER_LOG_WIDTH
from moe_codesign.fitting import ratios
from moe_codesign.fitting.races import read_races
from moe_codesign.fitting.ratio_law import law_of_sets
from moe_codesign.formats.aiconfigurator import SETS

RACED = "h100_sxm"
RACES = Path(__file__).parents[2] / "results" / "gpu"
STEM = "NVIDIA_H100_80GB_HBM3_tiles"
ROWS = "aiconfigurator-core 0.12.0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    with ProcessPoolExecutor(options.jobs) as pool:
        own = list(pool.map(ratios.stack_estimates, SETS))
        elsewhere = [one for one in pool.map(ratios.stack_estimates_elsewhere, SETS) if one is not None]
    tables, chip = Tables(jobs=options.jobs), GpuChip.of(load_chip(RACED))
    races = [race for name in (STEM, f"{STEM}_unseen") for race in read_races(RACES / f"{name}.csv.gz", chip)]
    raced, tiles = ratios.race_estimates(chip, races, LAYER_LOG_WIDTH)
    layers = [ratios.layers_of(which) for which in SETS if which[2] == "bfloat16"]
    sheets = [ratios.sheet_estimates(one) for one in layers]
    others = [ratios.our_estimates(one, tables) for one in layers if one.chip.name != RACED]
    x = shipped.of_chip(chip, shipped_only=True).calibration.coefficients
    file = RatioFile(
        format=1,
        stack=law_of_sets(own, f"fitted shapes of {ROWS}, by trees that have not seen them"),
        stack_elsewhere=law_of_sets(elsewhere, "the same rows, by the most similar other chip's calibration"),
        ours=law_of_sets(raced, "results/gpu, GEMMs by trees that have not seen their shape", tiles),
        ours_elsewhere=law_of_sets(
            others,
            f"{len(others)} sets of {ROWS}, layers of other software by our model without races of their chip; tiles "
            "by the physics alone on results/gpu, doubled",
            ratios.tile_shares(races, x, math.log(UNKNOWN_INTERVAL[1])),
        ),
        simulated=ratios.SIMULATED,
        datasheet=law_of_sets(sheets, f"{len(sheets)} sets of {ROWS}, by the data sheet's roofline"),
    )
    print(write(FILE, file, None))


if __name__ == "__main__":
    main()
