"""Fit the operations of whole models and write what ships (``make operations DATA=FOLDER``).

FOLDER is an unpacked wheel of aisimulate. Each chip and stack is a file of its own, written as it is fitted.
"""

import argparse
import concurrent.futures
import sys
from pathlib import Path

from moe_codesign.calibrations.operations import FOLDER, OperationsFile, write_operations
from moe_codesign.chips import GpuChip, load_chip
from moe_codesign.cost.operations.families import OPERATIONS
from moe_codesign.cost.operations.operation import Rates
from moe_codesign.fitting.operation_rows import MEASURED_CHIPS, MEASURED_STACKS, SOURCES, Rows, rows_of
from moe_codesign.fitting.operations import fit_operation, with_keys
from moe_codesign.formats.aisimulate import data_folder, version_of


def fit(data: Path, chip_name: str, stack: str, out: Path) -> str:
    rates = Rates.of(GpuChip.of(load_chip(chip_name)))
    rows: dict[str, dict[str, Rows]] = {}
    for source in SOURCES:
        for variant, (_, found) in rows_of(data, chip_name, stack, source).items():
            rows.setdefault(source.operation, {})[variant] = with_keys(OPERATIONS[source.operation], found)
    operations, trees, lines = {}, {}, []
    for name, by_variant in rows.items():
        fitted = fit_operation(OPERATIONS[name], rates, by_variant)
        if fitted is None:
            continue
        operations[name] = fitted.fitted
        if fitted.trees is not None:
            trees[name] = fitted.trees
        lines += [
            f"{chip_name} {stack} {name} {variant}: {one.mape:.1f} {one.median:.1f} (physics {one.physics_mape:.1f}, "
            f"roofline {one.roofline_mape:.1f}, neighbour {one.neighbour_mape:.1f}), "
            f"inside {one.interval_coverage:.0f} %, {one.rows} rows of {one.shapes} shapes"
            for variant, one in fitted.fitted.held_out.items()
        ]
    if operations:
        file = OperationsFile(
            chip=chip_name, stack=stack, source=f"aisimulate {version_of(data)}", operations=operations
        )
        write_operations(out, file, trees)
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder of an unpacked wheel of aisimulate")
    parser.add_argument("--only", default="", help="chips and stacks that hold this text, as 'h200_sxm vllm'")
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    data = data_folder(options.data)
    which = [(chip, stack) for chip in MEASURED_CHIPS for stack in MEASURED_STACKS if options.only in f"{chip} {stack}"]
    with concurrent.futures.ProcessPoolExecutor(options.jobs) as pool:
        futures = [pool.submit(fit, data, chip, stack, options.out) for chip, stack in which]
        for future in concurrent.futures.as_completed(futures):
            print(future.result(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
