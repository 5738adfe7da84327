"""Fit the cost model of vLLM and SGLang to aiconfigurator-core's measured times and write the calibrations that ship.

    pip install aiconfigurator-core==0.12.0; python benchmarks/shipped/stacks.py      a quarter of an hour on two cores

How right they are: benchmarks/accuracy/run.py.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from moe_codesign.calibrations.catalogue import SHIPPED
from moe_codesign.cost.stacks import shipped
from moe_codesign.fitting.stack_sets import calibrate_rows, fit_rows, known_to_all
from moe_codesign.formats.aiconfigurator import SETS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    with ProcessPoolExecutor(options.jobs) as pool:
        rows = list(pool.map(fit_rows, SETS))
        for calibration in pool.map(partial(calibrate_rows, known_to_all(rows)), rows):
            print(shipped.save(calibration, SHIPPED), flush=True)


if __name__ == "__main__":
    main()
