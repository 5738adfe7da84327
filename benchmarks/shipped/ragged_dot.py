"""Fit the models of public ragged_dot kernels and write moe_codesign/calibrations/ragged_dot.toml.

    python benchmarks/shipped/ragged_dot.py --ragged FILE.csv.gz      a few minutes on two cores

FILE holds the times of tokamax' autotuning caches; see :mod:`moe_codesign.formats.tokamax`.
"""

import argparse
from pathlib import Path

from moe_codesign.calibrations.ragged_dot import FITTED
from moe_codesign.compiler.tile_table import Tables
from moe_codesign.fitting.ragged_dot import cases_of, write
from moe_codesign.formats.tokamax import DEVICES, read_times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ragged", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=FITTED)
    options = parser.parse_args()
    cases, refused = cases_of(read_times(options.ragged), Tables(jobs=2))
    for reason in sorted(set(refused)):
        print(f"left out: {reason}")
    write(options.out, cases, tuple(DEVICES.values()))
    print(options.out.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
