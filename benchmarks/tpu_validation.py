"""Static cycles of compiled TPU kernels against published times: writes results/tpu_validation.md.

The times are tokamax's own, of its first Pallas ragged_dot (a descendant of megablox: the same grid, bf16, forward, one
core), with the tile that ran; give the table with ``--ragged FILE.csv.gz``. For each the megablox kernel is compiled
with that tile and read in two ways:

- **profile**: what the compiler counts for one more group of as many row tiles as a group touches on average (fewer and
  more, interpolated), copies as the compiler sees them, times the groups.
- **plan**: every visit of the very group sizes takes the longer of its computing cycles and of its bytes from HBM.

Each has one constant per generation, the median ratio to the measured times.

    python benchmarks/tpu_validation.py --ragged FILE.csv.gz      about 15 minutes on two cores
"""

import argparse
import csv
import gzip
import json
import math
import multiprocessing
from collections import Counter, defaultdict
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import megablox as shared
import numpy as np
from megablox import TIME_LIMIT_S, Form, Problem, depths, form_of, megablox, megablox_us, one_core, start_worker
from pebble import ProcessExpired, ProcessPool

from moe_codesign.chips import load_chip
from moe_codesign.compiler.artifact import compiler_version
from moe_codesign.compiler.tpu import analyse
from moe_codesign.cost.tpu import INTERVAL

OUT = Path(__file__).parents[1] / "results" / "tpu_validation.md"
DEVICES = {"tpu_v5_lite": "tpu_v5e", "tpu_v5": "tpu_v5p", "tpu_v6_lite": "tpu_v6e", "tpu7x": "tpu7x"}
Tile = tuple[int, int, int]


@dataclass(frozen=True)
class Case:
    """One published problem and tile, and the median of its times."""

    chip: str
    m: int
    k: int
    n: int
    groups: int
    tile: Tile
    single: bool
    equal: bool
    us: float

    @property
    def problem(self) -> Problem:
        return Problem(
            "published",
            "single" if self.single else "equal" if self.equal else "random",
            self.m,
            self.k,
            self.n,
            self.groups,
        )

    @property
    def aligned(self) -> bool:
        return self.k % 128 == 0 and self.n % 128 == 0


def cases(path: Path) -> list[Case]:
    """bf16 forward problems of the first kernel; the same problem and tile measured again counts once."""
    times: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    with gzip.open(path, "rt") as file:
        for row in csv.DictReader(file):
            kernel = row["kind"] == "fwd" and row["op"] == "pallas_mosaic_tpu_ragged_dot" and bool(row["config"])
            if row["device"] in DEVICES and kernel and row["lhs"].startswith("bf") and row["rhs"].startswith("bf"):
                config = json.loads(row["config"])
                tile = (config["tile_m"], config["tile_k"], config["tile_n"])
                sizes = tuple(int(row[name]) for name in "MKNG")
                spread = row["group_dist"]
                times[DEVICES[row["device"]], *sizes, tile, spread == "single", spread == "equal"].append(
                    1e3 * float(row["median_ms"])
                )
    return [Case(*key, float(np.median(found))) for key, found in times.items()]


def sizes_of(case: Case) -> np.ndarray:
    if case.single:
        return np.array([case.m])
    if case.equal:
        return np.full(case.groups, case.m // case.groups)
    return case.problem.sizes


def row_tiles(sizes: np.ndarray, tm: int) -> float:
    """Row tiles that a group touches on average."""
    ends = np.cumsum(sizes)
    some = sizes > 0
    return float(((ends - 1) // tm - (ends - sizes) // tm + 1)[some].mean())


def group_cycles(target: str, form: Form, columns: int, r: int, vmem_bytes: int) -> float:
    """What one more group of ``r`` row tiles adds, over all its column tiles."""
    assert shared._folder is not None

    def cycles(groups: int) -> int:
        call = megablox(form, groups * r, per_group=r, columns=columns, vmem_bytes=vmem_bytes)
        return analyse(target, *call, "megablox", shared._folder)[0]

    few, many = cycles(2), cycles(4)
    return (many - few) / 2


def compile_all(found: list[Case]) -> tuple[dict[tuple[Any, ...], float], Counter[str]]:
    """Cycles of every job that both readings need, and why others have none."""
    jobs: dict[tuple[Any, ...], tuple[Any, list[Any]]] = {}
    for case in found:
        chip = load_chip(case.chip)
        # Theirs asks for more than the compiler's default; what the tile needs is not told, so all but a little.
        target, vmem_bytes = str(chip.target), (chip.core.vmem_bytes or 0) - (4 << 20)
        for depth in depths(case.tile, case.k):
            form = form_of(case.tile, case.k, depth)
            jobs["plan", case.chip, form] = (shared.visit_cycles, [target, form, vmem_bytes])
        form = form_of(case.tile, case.k, math.ceil(case.k / case.tile[1]))
        columns = math.ceil(case.n / case.tile[2])
        touched = row_tiles(sizes_of(case), case.tile[0])
        for r in {max(1, math.floor(touched)), math.ceil(touched)}:
            if r <= 64:
                jobs["profile", case.chip, form, columns, r] = (group_cycles, [target, form, columns, r, vmem_bytes])
    results: dict[tuple[Any, ...], float] = {}
    missing: Counter[str] = Counter()
    with ProcessPool(2, 25, context=multiprocessing.get_context("spawn"), initializer=start_worker) as pool:
        futures = {key: pool.schedule(f, args=args, timeout=TIME_LIMIT_S) for key, (f, args) in jobs.items()}
        for key, future in futures.items():
            try:
                results[key] = future.result()
            except FutureTimeout:
                missing["timeout"] += 1
            except ProcessExpired:
                missing["aborted"] += 1
            except Exception as error:
                missing["VMEM" if "vmem" in str(error).lower() else type(error).__name__] += 1
    return results, missing


def profile_us(case: Case, results: dict[tuple[Any, ...], float]) -> float:
    form = form_of(case.tile, case.k, math.ceil(case.k / case.tile[1]))
    columns, sizes = math.ceil(case.n / case.tile[2]), sizes_of(case)
    touched = row_tiles(sizes, case.tile[0])
    low, high = max(1, math.floor(touched)), math.ceil(touched)
    few, many = (results.get(("profile", case.chip, form, columns, r), math.nan) for r in (low, high))
    each = few if high == low else few + (many - few) * (touched - low) / (high - low)
    return each * int((sizes > 0).sum()) / ((load_chip(case.chip).core.profile_cycles_per_ns or 1.0) * 1e3)


def plan_us(case: Case, results: dict[tuple[Any, ...], float]) -> float:
    chip = one_core(load_chip(case.chip))
    parts = [
        results.get(("plan", case.chip, form_of(case.tile, case.k, d)), math.nan) for d in depths(case.tile, case.k)
    ]
    depth = math.ceil(case.k / case.tile[1])
    cycles = parts[0] if len(parts) == 1 else parts[0] + (parts[1] - parts[0]) / 2 * (depth - 2)
    return megablox_us(chip, case.problem, case.tile, cycles, sizes=sizes_of(case))


def accuracy(measured: np.ndarray, predicted: np.ndarray) -> tuple[int, float, float, float, float]:
    """(problems, constant, mean, median and worst error) with the median ratio as the one constant."""
    known = np.isfinite(predicted)
    if not known.any():
        return 0, math.nan, math.nan, math.nan, math.nan
    constant = float(np.median(measured[known] / predicted[known]))
    error = np.abs(constant * predicted[known] / measured[known] - 1.0)
    return int(known.sum()), constant, float(error.mean()), float(np.median(error)), float(error.max())


def faster_named(found: list[Case], predicted: dict[Case, float]) -> str:
    """Of the problems measured with two tiles that differ by over 3 %: how often the faster is named."""
    pairs = right = 0
    for one in found:
        for other in found:
            same = (one.chip, one.problem) == (other.chip, other.problem) and one.tile < other.tile
            known = math.isfinite(predicted[one]) and math.isfinite(predicted[other])
            if same and known and abs(one.us / other.us - 1.0) > 0.03:
                pairs += 1
                right += (one.us < other.us) == (predicted[one] < predicted[other])
    return f"{right} of {pairs}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ragged", type=Path, required=True)
    found = cases(parser.parse_args().ragged)
    results, missing = compile_all(found)
    lines = []
    for chip in DEVICES.values():
        for aligned in (True, False):
            some = [case for case in found if case.chip == chip and case.aligned == aligned]
            if not some:
                continue
            measured = np.array([case.us for case in some])
            for name, predict in (("profile", profile_us), ("plan", plan_us)):
                predicted = {case: predict(case, results) for case in some}
                ratio = measured / np.array(list(predicted.values()))
                inside = int(((ratio >= INTERVAL[0]) & (ratio <= INTERVAL[1])).sum())
                count, constant, mean, median, worst = accuracy(measured, np.array(list(predicted.values())))
                sizes = "aligned" if aligned else "K or N no multiple of 128"
                lines.append(
                    f"| {chip} | {sizes} | {name} | {count} of {len(some)} | {constant:.2f} | {mean:.1%} "
                    f"| {median:.1%} | {worst:.0%} | {inside} of {count} | {faster_named(some, predicted)} |"
                )
    OUT.write_text(
        "# Static cycles against published times\n\n"
        f"Made by `python benchmarks/tpu_validation.py --ragged FILE` with {compiler_version('pallas')}; what the "
        "two readings are stands at the head of the script. constant: measured over predicted, after the chip file's "
        f"cycles per nanosecond. inside: measured times from {INTERVAL[0]} to {INTERVAL[1]} times the prediction with "
        "the chip file's constant alone, which is the interval of grade simulated. faster tile: of problems measured "
        "with two tiles over 3 % apart, how often the right one is "
        f"named. Compiles without a count: {dict(missing) or 'none'}.\n\n"
        "| chip | sizes | reading | problems | constant | mean error | median | worst | inside | faster tile |\n"
        "|---|---|---|---|---|---|---|---|---|---|\n" + "\n".join(lines) + "\n"
    )
    print(OUT.read_text())


if __name__ == "__main__":
    main()
