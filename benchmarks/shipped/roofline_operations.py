"""Fit how far operations are from the roofline, for chips of which nothing was measured (``make operations``)."""

import argparse
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from moe_codesign.calibrations.roofline_operations import SlowdownsFile, write_slowdowns
from moe_codesign.chips import GpuChip, load_chip
from moe_codesign.cost.operations.families import OPERATIONS
from moe_codesign.cost.operations.operation import Rates
from moe_codesign.fitting.operation_rows import MEASURED_CHIPS, MEASURED_STACKS, SOURCES, Rows, rows_of
from moe_codesign.fitting.operations import with_keys
from moe_codesign.fitting.roofline_operations import BoundRows, fit_slowdown
from moe_codesign.fitting.splits import in_test_split
from moe_codesign.formats.aisimulate import data_folder, version_of

_ROWS = 300
"""Rows of each kind of problem on each chip under each stack."""


def bounds_of(rates: Rates, operation: str, variant: str, rows: Rows) -> BoundRows:
    kept = with_keys(OPERATIONS[operation], rows)
    kept = kept.take(~in_test_split(kept.keys))
    kept = kept.take(np.random.default_rng(0).permutation(len(kept))[:_ROWS])
    bounds = OPERATIONS[operation].bounds(rates, variant, kept.sizes)
    return BoundRows(bounds.compute_us, bounds.memory_us, kept.latency_us)


def joined(parts: list[BoundRows]) -> BoundRows:
    return BoundRows(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in ("compute_us", "memory_us", "latency_us"))
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder of an unpacked wheel of aisimulate")
    options = parser.parse_args()
    data = data_folder(options.data)
    found: defaultdict[str, defaultdict[str, list[BoundRows]]] = defaultdict(lambda: defaultdict(list))
    for chip in MEASURED_CHIPS:
        rates = Rates.of(GpuChip.of(load_chip(chip)))
        for source in SOURCES:
            for stack in MEASURED_STACKS:
                read = rows_of(data, chip, stack, source, most_moe_rows=_ROWS)
                for variant, (_, rows) in read.items():
                    if variant in OPERATIONS[source.operation].variants:
                        found[source.operation][chip].append(bounds_of(rates, source.operation, variant, rows))
        print(f"read {chip}", flush=True)
    operations = {
        name: fit_slowdown({chip: joined(parts) for chip, parts in by_chip.items()}) for name, by_chip in found.items()
    }
    write_slowdowns(SlowdownsFile(source=f"aisimulate {version_of(data)}", operations=operations))
    for name, one in operations.items():
        print(
            f"{name}: {one.compute} x compute, {one.memory} x bytes, {one.fixed_us} us, x/: {np.exp(one.interval):.2f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
