"""Fit the cost model of our own kernels to the races of results/gpu and write the calibration that ships.

    python benchmarks/shipped/our_kernels.py [--jobs 2]      a quarter of an hour where the tiles are compiled

How right it is: benchmarks/accuracy/ours.py.
"""

import argparse
from pathlib import Path

from moe_codesign.calibrations.catalogue import SHIPPED
from moe_codesign.chips import GpuChip, load_chip
from moe_codesign.cost.ours import shipped
from moe_codesign.fitting.ours import START, calibrate
from moe_codesign.fitting.races import read_races

RACES = Path(__file__).parents[2] / "results" / "gpu"
CHIPS = {"h100_sxm": ("NVIDIA_H100_80GB_HBM3_tiles.csv.gz", "NVIDIA_H100_80GB_HBM3_tiles_unseen.csv.gz")}
"""Tables of races by chip."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    for name, tables in CHIPS.items():
        chip = GpuChip.of(load_chip(name))
        races = [race for table in tables for race in read_races(RACES / table, chip, jobs=options.jobs)]
        calibration, _ = calibrate(chip, races, "results/gpu", START)
        print(shipped.save(calibration, SHIPPED))


if __name__ == "__main__":
    main()
