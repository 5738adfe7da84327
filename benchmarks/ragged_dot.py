"""Fit the cost model of public Triton grouped matmuls: writes moe_codesign/cost/ragged_dot.toml.

The times are PyPI tokamax' own (its autotuning caches: bf16, forward, H100 and B200), with the tile that ran; give the
table with ``--ragged FILE.csv.gz``. Their kernels are not here: ours, compiled with that tile, stands for them. Every
(K, N, groups) is once left out of the fit, and predicted by it: the errors of results/accuracy/ragged_dot.md, and the
intervals, are those. There too: which tile of those measured on a problem is named the best, and what that costs.

    python benchmarks/ragged_dot.py --ragged FILE.csv.gz      a few minutes on two cores
"""

import argparse
import csv
import gzip
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from moe_codesign.chips import load_chip
from moe_codesign.compiler.artifact import compiler_version
from moe_codesign.cost import ragged_dot
from moe_codesign.cost.problem import GroupedGemm
from moe_codesign.cost.ragged_dot import Coefficients
from moe_codesign.cost.table import Tables, TileTable, kernel_for
from moe_codesign.errors import UserError
from moe_codesign.prediction import gemm_tile

OUT = Path(__file__).parents[1] / "results" / "accuracy" / "ragged_dot.md"
DEVICES = {"nvidia_h100_80gb_hbm3": "h100_sxm", "nvidia_b200": "b200"}
OPS = ("pallas_triton_ragged_dot", "triton_ragged_dot")
START = np.log([0.8, 5.0, 0.1, 0.1])
LOW = np.log([0.3, 0.05, 1e-4, 1e-3])
HIGH = np.log([0.95, 1000.0, 10.0, 2.0])


@dataclass(frozen=True)
class Case:
    chip: str
    op: str
    gemm: GroupedGemm
    table: TileTable
    groups: str
    us: float

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.gemm.k, self.gemm.n, len(self.gemm.rows)

    @property
    def problem(self) -> tuple[Any, ...]:
        return self.chip, self.op, self.gemm.total_rows, *self.shape, self.groups


def group_sizes(spread: str, m: int, groups: int) -> np.ndarray:
    """As the measurements drew them; explicit ones are not told, and are taken as drawn."""
    if spread == "single":
        return np.array([m] + [0] * (groups - 1))
    if spread == "equal":
        return np.full(groups, m // groups)
    return np.bincount(np.random.default_rng(0).choice(groups, (m,)), minlength=groups)


def cases(path: Path, tables: Tables) -> tuple[list[Case], list[str]]:
    """Measured problems whose tile compiles; the same measured again counts once. And why others do not."""
    times: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    with gzip.open(path, "rt") as file:
        for row in csv.DictReader(file):
            types = row["lhs"].startswith("bf") and row["rhs"].startswith("bf")
            if row["device"] in DEVICES and row["op"] in OPS and row["kind"] == "fwd" and types and row["config"]:
                sizes = tuple(int(row[name]) for name in "MKNG")
                key = DEVICES[row["device"]], row["op"], sizes, row["group_dist"], row["config"]
                times[key].append(1e3 * float(row["median_ms"]))
    found, refused = [], []
    for (chip_name, op, (m, k, n, groups), spread, config), us in times.items():
        chip = load_chip(chip_name)
        kernel = kernel_for(chip, ragged_dot.KERNEL)
        gemm = GroupedGemm("down", group_sizes(spread, m, groups), k, n, m, "bfloat16", accumulates=False)
        try:
            tile = gemm_tile({"tile": config}, chip, kernel, gemm)
        except UserError as error:
            refused.append(str(error))
            continue
        if tile is None:
            continue
        table = tables.get(chip, kernel, "down", "bfloat16", only=tile)
        if not len(table):
            refused.append(f"{chip_name}: {next(iter(table.refused.values()))}")
            continue
        found.append(Case(chip_name, op, gemm, table, spread, float(np.median(us))))
    return found, refused


def predict(logs: np.ndarray, some: list[Case]) -> np.ndarray:
    coefficients = Coefficients.from_array(np.exp(logs))
    return np.array([ragged_dot.tile_times(c.table, c.gemm, coefficients).total_us[0] for c in some])


def fit(some: list[Case], *, walk: bool = True) -> np.ndarray:
    """Logarithms of the coefficients; without the walk over groups, which is then held at next to nothing."""
    measured = np.log([case.us for case in some])
    high = HIGH if walk else np.array([*HIGH[:3], LOW[3] + 1e-3])
    solved = least_squares(
        lambda logs: np.log(predict(logs, some)) - measured,
        np.minimum(START, high - 1e-4),
        bounds=(LOW, high),
        loss="soft_l1",
        f_scale=0.05,
    )
    return np.asarray(solved.x)


def held_out(some: list[Case]) -> np.ndarray:
    """Each case by a fit without its shape."""
    predicted = np.full(len(some), np.nan)
    for shape in {case.shape for case in some}:
        left = [i for i, case in enumerate(some) if case.shape == shape]
        predicted[left] = predict(fit([case for case in some if case.shape != shape]), [some[i] for i in left])
    return predicted


def regret(some: list[Case], predicted: np.ndarray) -> tuple[int, int, float]:
    """Problems measured with several tiles, how often the best is named, mean loss of the named one."""
    by_problem: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for i, case in enumerate(some):
        by_problem[case.problem].append(i)
    several = [places for places in by_problem.values() if len(places) > 1]
    losses = []
    for places in several:
        named = places[int(np.argmin(predicted[places]))]
        losses.append(some[named].us / min(some[i].us for i in places) - 1.0)
    return len(losses), sum(loss == 0.0 for loss in losses), float(np.mean(losses)) if losses else 0.0


def errors(measured: np.ndarray, predicted: np.ndarray) -> str:
    """Mean and median."""
    found = np.abs(predicted / measured - 1.0)
    return f"{found.mean():.1%} / {np.median(found):.1%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ragged", type=Path, required=True)
    found, refused = cases(parser.parse_args().ragged, Tables(jobs=2))
    toml, lines = [], []
    for chip in DEVICES.values():
        some = [case for case in found if case.chip == chip]
        measured, shapes = np.array([case.us for case in some]), len({case.shape for case in some})
        logs, out = fit(some), held_out(some)
        low, high = np.quantile(measured / out, [0.05, 0.95])
        worst = np.abs(out / measured - 1.0).max()
        problems, right, loss = regret(some, out)
        tiles = f"{right} of {problems}, {loss:.1%}" if problems else "-"
        lines.append(
            f"| {chip} | {len(some)} | {shapes} | {errors(measured, predict(logs, some))} | {errors(measured, out)} "
            f"| {worst:.0%} | {errors(measured, predict(fit(some, walk=False), some))} | {low:.2f} .. {high:.2f} "
            f"| {tiles} |"
        )
        toml += [
            f"\n[{chip}]  # {len(some)} times of {shapes} shapes, error on those left out {errors(measured, out)}",
            *(f"{name} = {value:.4g}" for name, value in zip(Coefficients.names(), np.exp(logs), strict=True)),
            f"low = {min(low, 1.0):.3f}",
            f"high = {max(high, 1.0):.3f}",
        ]
    ragged_dot.FITTED.write_text(
        "# Coefficients of cost/ragged_dot.py, fitted by benchmarks/ragged_dot.py to the times in tokamax' autotuning\n"
        "# caches (Apache-2.0; bf16, forward). Errors are mean / median. low, high: 5th and 95th percentile of\n"
        "# measured over predicted time on shapes that the fit had not seen.\n" + "\n".join(toml) + "\n"
    )
    OUT.write_text(
        "# Public Triton grouped matmuls: predicted against measured\n\n"
        f"Made by `python benchmarks/ragged_dot.py --ragged FILE` with {compiler_version('triton')}; what is measured, "
        "and which binaries stand for it, is told at the head of the script. Errors are mean / median of |predicted / "
        "measured - 1|; interval: 5th to 95th percentile of measured / predicted on shapes left out.\n\n"
        "| chip | times | shapes (K, N, groups) | error of the fit | on shapes left out | worst of them | of a fit "
        "without the walk | interval | best tile named, mean regret |\n|---|---|---|---|---|---|---|---|---|\n"
        + "\n".join(lines)
        + "\n\nThe walk: every program of these kernels finds its group by walking the groups' sizes, one dependent "
        "load after the other. With 256 groups and K = 512 it is most of the time.\n\n"
        f"Left out, {len(refused)}: {'; '.join(sorted(set(refused))) or 'none'}.\n"
    )
    print(OUT.read_text())


if __name__ == "__main__":
    main()
