"""Static cycles of compiled TPU kernels against published times: writes results/tpu_validation.md.

The times are tokamax's own (bf16, one core); give the table with ``--ragged FILE.csv.gz``. For its first Pallas
ragged_dot, a descendant of megablox, the table says which tile ran; megablox (the same grid) is compiled with it, for
the forward product and (on a v5e and tpu7x, which have problems with several tiles) for both gradients, and read in two
ways (the gradient to the weights by plan alone):

- **profile**: what the compiler counts for one more group of as many row tiles as a group touches on average (fewer and
  more, interpolated), copies as the compiler sees them, times the groups.
- **plan**: every visit of the very group sizes takes the longer of its computing cycles and of its bytes from HBM.

The table has no tiles of gmm_v2: it runs at those of its own rule, from the cycles that gmm_v2_counts.py counted
(plan), for 512 rows and more. It splits an even number of column tiles over a v5p's two cores. No count says what
programs lose that are larger than the largest known to run at full speed: they stand apart. (That size was read from
these timings.)

Each has one constant per generation, kernel and reading: the median ratio to the measured times. Problems of over eight
groups are also judged apart: two of those with eight on tpu7x, said to be of random groups, took exactly as long as the
same in equal groups or in a single one.

    python benchmarks/tpu/validation.py --ragged FILE.csv.gz      about 40 minutes on two cores
"""

import argparse
import csv
import gzip
import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from gmm_v2 import GmmV2
from megablox import (
    Job,
    Kind,
    Tile,
    at_depth,
    count,
    depths,
    form_of,
    group_cycles,
    megablox_us,
    visit_cycles,
    weight_gradient_us,
)
from problems import Problem, cycles_per_us, one_core

from moe_codesign.chips import TpuChip, load_chip
from moe_codesign.cost.ours.tpu import INTERVAL
from moe_codesign.versions import compiler_version

OUT = Path(__file__).parents[2] / "results" / "tpu_validation.md"
DEVICES = {"tpu_v5_lite": "tpu_v5e", "tpu_v5": "tpu_v5p", "tpu_v6_lite": "tpu_v6e", "tpu7x": "tpu7x"}
KERNELS = {"pallas_mosaic_tpu_ragged_dot": "v1", "pallas_mosaic_tpu_v2_ragged_dot": "gmm_v2"}
KINDS: dict[str, Kind] = {"fwd": "forward", "dlhs": "rows", "drhs": "weights"}
_FEW_GROUPS = 8
MOST_ROW_TILES = 64
"""Most row tiles of a group; more make programs whose profile takes minutes."""
Counts = dict[str, float | str]


@dataclass(frozen=True)
class Case:
    """One published problem and tile (none of gmm_v2), and the median of its times.

    ``problem`` is that of the product which is computed: the gradient to the rows has the forward's K and N exchanged.
    """

    chip: str
    kernel: str
    kind: Kind
    problem: Problem
    tile: Tile | None
    us: float

    @property
    def aligned(self) -> bool:
        return self.problem.k % 128 == 0 and self.problem.n % 128 == 0

    @property
    def touched(self) -> float:
        """Row tiles that a group touches on average."""
        assert self.tile is not None
        sizes, tm = self.problem.sizes, self.tile[0]
        ends, some = np.cumsum(sizes), sizes > 0
        return float(((ends - 1) // tm - (ends - sizes) // tm + 1)[some].mean())


def cases(path: Path) -> list[Case]:
    """Published problems in bfloat16; the same problem and tile measured again counts once.

    Explicit group sizes are not published, and are taken as drawn at random.
    """
    times: dict[tuple[str, str, Kind, Problem, Tile | None], list[float]] = defaultdict(list)
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            types = row["lhs"].startswith("bf") and row["rhs"].startswith("bf")
            if row["device"] not in DEVICES or row["op"] not in KERNELS or not types or not row["config"]:
                continue
            config, kind = json.loads(row["config"]), KINDS[row["kind"]]
            tile = None if config["tile_m"] is None else (config["tile_m"], config["tile_k"], config["tile_n"])
            m, k, n, groups = (int(row[name]) for name in "MKNG")
            if kind == "rows":
                k, n = n, k
            spread = row["group_dist"] if row["group_dist"] in ("single", "equal") else "random"
            key = DEVICES[row["device"]], KERNELS[row["op"]], kind, Problem(m, k, n, groups, spread), tile
            times[key].append(1e3 * float(row["median_ms"]))
    return [Case(*key, float(np.median(found))) for key, found in times.items()]


def profile_jobs(case: Case) -> dict[str, Job]:
    """None of the gradient to the weights, whose conditions the profile cannot count."""
    chip, tile = TpuChip.of(load_chip(case.chip)), case.tile
    if tile is None or case.kind == "weights":
        return {}
    form = form_of(tile, case.problem.k, kind=case.kind)
    touched = {max(1, math.floor(case.touched)), math.ceil(case.touched)}
    return {
        f"profile {form} {case.problem.n} {r}": (group_cycles, [chip.target, form, case.problem.n, r, room(case.chip)])
        for r in sorted(touched)
        if r <= MOST_ROW_TILES
    }


def plan_jobs(case: Case) -> dict[str, Job]:
    tile, k = case.tile, case.problem.k
    if tile is None:
        return {}
    if case.kind == "weights":
        forms = [replace(form_of(tile, k, 1, case.kind), whole=whole) for whole in (False, True)]
    else:
        forms = [form_of(tile, k, depth, case.kind) for depth in depths(tile, k)]
    return {
        f"plan {form}": (visit_cycles, [TpuChip.of(load_chip(case.chip)).target, form, room(case.chip)])
        for form in forms
    }


def room(chip: str) -> int:
    """Theirs asks for more VMEM than the compiler's default; what the tile needs is not published: all but a little."""
    return TpuChip.of(load_chip(chip)).core.vmem_bytes - (4 << 20)


def profile_us(case: Case, counts: Counts) -> float:
    each = [value if isinstance(value := counts.get(key, ""), float) else math.nan for key in profile_jobs(case)]
    if not each:
        return math.nan
    cycles = each[0] + (each[-1] - each[0]) * (case.touched % 1.0)
    return cycles * int((case.problem.sizes > 0).sum()) / cycles_per_us(TpuChip.of(load_chip(case.chip)))


def plan_us(case: Case, counts: Counts) -> float:
    chip, tile = one_core(TpuChip.of(load_chip(case.chip))), case.tile
    if tile is None:
        return gmm_v2_us(case)
    parts = [value if isinstance(value := counts.get(key, ""), float) else math.nan for key in plan_jobs(case)]
    if case.kind == "weights":
        return weight_gradient_us(chip, case.problem, tile, *parts)
    return megablox_us(chip, case.problem, tile, at_depth(parts, tile, case.problem.k))


def gmm_v2_of(case: Case) -> GmmV2:
    return GmmV2(one_core(TpuChip.of(load_chip(case.chip))), transposed=case.kind == "rows")


def gmm_v2_us(case: Case) -> float:
    if case.problem.m < 512:
        return math.nan
    core, found = TpuChip.of(load_chip(case.chip)).core, gmm_v2_of(case)
    columns = math.ceil(case.problem.n / found.default_tile(case.problem)[1])
    cores = core.count // core.devices_per_chip
    return found.default(case.problem) / (cores if columns % cores == 0 else 1)


def kernel_of(case: Case) -> str:
    """Which of the table's kernels: gmm_v2's large programs are one of their own."""
    if case.tile is not None or case.problem.m < 512:
        return case.kernel
    found = gmm_v2_of(case)
    return case.kernel + ", large programs" * found.is_large(case.problem, *found.default_tile(case.problem))


def errors_of(measured: np.ndarray, predicted: np.ndarray) -> tuple[float, np.ndarray]:
    """(constant, error of each problem), the median ratio being the one constant; NaN where nothing is predicted."""
    constant = float(np.nanmedian(measured / predicted))
    return constant, np.abs(constant * predicted / measured - 1.0)


def fastest_named(some: list[Case], predicted: list[float], apart: float) -> str:
    """How often the fastest tile is named, of how many problems with several tiles that differ by more than ``apart``.

    A problem counts where all its tiles have a prediction.
    """
    by_problem: dict[Problem, list[tuple[float, float]]] = defaultdict(list)
    for case, us in zip(some, predicted, strict=True):
        by_problem[case.problem].append((case.us, us))
    right = found = 0
    for pairs in by_problem.values():
        measured, guessed = zip(*pairs, strict=True)
        if len(pairs) > 1 and max(measured) / min(measured) > apart and all(map(math.isfinite, guessed)):
            found += 1
            right += min(pairs)[0] == min(pairs, key=lambda pair: pair[1])[0]
    return f"{right} of {found}"


def lines_of(chip: str, found: list[Case], counts: Counts) -> list[str]:
    """The table's lines of one chip."""
    readings: dict[str, Callable[[Case, Counts], float]] = {"profile": profile_us, "plan": plan_us}
    lines = []
    groups: dict[tuple[str, Kind, bool], list[Case]] = defaultdict(list)
    for case in found:
        if case.chip == chip:
            groups[kernel_of(case), case.kind, not case.aligned].append(case)
    for (kernel, kind, odd), some in sorted(groups.items()):
        measured = np.array([case.us for case in some])
        for name, read in readings.items():
            predicted = [read(case, counts) for case in some]
            if not np.isfinite(predicted).any():
                continue
            ratio = measured / np.array(predicted)
            inside = int(((ratio >= INTERVAL[0]) & (ratio <= INTERVAL[1])).sum())
            constant, error = errors_of(measured, np.array(predicted))
            known = np.isfinite(error)
            many = error[known & np.array([case.problem.groups > _FEW_GROUPS for case in some])]
            apart_mean = f"{many.mean():.1%} of {len(many)}" if len(many) else "-"
            named = " | ".join(fastest_named(some, predicted, apart) for apart in (1.03, 1.1))
            lines.append(
                f"| {chip} | {kernel} | {kind}{', K or N no multiple of 128' * odd} | {name} "
                f"| {known.sum()} of {len(some)} | {constant:.2f} | {error[known].mean():.1%} "
                f"| {np.median(error[known]):.1%} | {error[known].max():.0%} | {apart_mean} | {inside} | {named} |"
            )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ragged", type=Path, required=True)
    parser.add_argument("--gradients", default="tpu_v5e,tpu7x", help="chips of which gradients are compiled too")
    options = parser.parse_args()
    with_gradients = options.gradients.split(",")
    found = [
        case
        for case in cases(options.ragged)
        if case.kind == "forward" or case.tile is None or case.chip in with_gradients
    ]
    lines, missing = [], Counter[str]()
    for chip in DEVICES.values():
        jobs: dict[str, Job] = {}
        for case in found:
            if case.chip == chip:
                jobs |= profile_jobs(case) | plan_jobs(case)
        counts = count(TpuChip.of(load_chip(chip)), jobs)
        missing.update(value for value in counts.values() if isinstance(value, str))
        lines += lines_of(chip, found, counts)
    OUT.write_text(
        "# Static cycles against published times\n\n"
        f"Made by `python benchmarks/tpu/validation.py --ragged FILE` with {compiler_version('pallas')}; what the "
        "readings are stands at the head of the script. rows, weights: the gradients to them. over 8 groups: mean "
        "error of those problems by the same constant. constant: measured over "
        f"predicted, after the chip file's cycles per nanosecond. inside: measured times from {INTERVAL[0]} to "
        f"{INTERVAL[1]} times the prediction with the chip file's constant alone, which is the interval of grade "
        "simulated. fastest tile: of problems measured with several tiles so far apart, how often the fastest is "
        "named; the tiles of one problem were timed with different versions, between which the very same tile differs "
        "by up to 12 %. "
        f"Compiles without a count: {dict(missing) or 'none'}.\n\n"
        "| chip | kernel | product | reading | problems | constant | mean error | median | worst "
        "| over 8 groups | inside | fastest tile, 3 % | 10 % |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|\n"
        + "\n".join(lines)
        + "\n",
        encoding="utf-8",
    )
    print(OUT.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
