"""Fit the cost models of public grouped matmuls: writes moe_codesign/cost/ragged_dot.toml.

The times are PyPI tokamax' own (its autotuning caches: bf16, forward), with the tile that ran; give the table with
``--ragged FILE.csv.gz``. On GPUs a kernel of ours, compiled with that tile, stands for theirs; on TPUs (its first
kernel, a descendant of megablox; one core) the model needs no binary. Every (K, N, groups) is once left out of the
fit, and predicted by it: the errors of results/accuracy/ragged_dot.md, and the intervals, are those. There too: which
tile of those measured on a problem is named the best, and what that costs.

    python benchmarks/ragged_dot.py --ragged FILE.csv.gz      a few minutes on two cores
"""

import argparse
import csv
import dataclasses
import gzip
import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from moe_codesign.calibrations import ragged_dot as fitted_ragged_dot
from moe_codesign.calibrations.ragged_dot import FITTED
from moe_codesign.chips import GpuChip, TpuChip, load_chip
from moe_codesign.compiler.kernels import kernel_for
from moe_codesign.compiler.tile_table import Tables, TileTable
from moe_codesign.cost.estimate import NoTileError
from moe_codesign.cost.ragged_dot import gpu as ragged_dot
from moe_codesign.cost.ragged_dot import tpu as ragged_dot_tpu
from moe_codesign.domain.grouped_gemm import GroupedGemm
from moe_codesign.errors import UserError
from moe_codesign.formats.tile_columns import gemm_tile
from moe_codesign.versions import compiler_version

OUT = Path(__file__).parents[1] / "results" / "accuracy" / "ragged_dot.md"
OPS = ("pallas_triton_ragged_dot", "triton_ragged_dot", "pallas_mosaic_tpu_ragged_dot")
DEVICES = {
    "nvidia_h100_80gb_hbm3": "h100_sxm",
    "nvidia_b200": "b200",
    "tpu_v5_lite": "tpu_v5e",
    "tpu_v5": "tpu_v5p",
    "tpu_v6_lite": "tpu_v6e",
    "tpu7x": "tpu7x",
}


@dataclass(frozen=True)
class Range:
    """Names of the coefficients, and logarithms of where a fit starts and what holds it."""

    names: tuple[str, ...]
    start: np.ndarray
    low: np.ndarray
    high: np.ndarray


GPU = Range(
    fitted_ragged_dot.RaggedDotGpuCoefficients.names(),
    np.log([0.8, 5.0, 0.1]),
    np.log([0.3, 0.05, 1e-3]),
    np.log([0.95, 1000.0, 2.0]),
)
TPU = Range(
    fitted_ragged_dot.RaggedDotTpuCoefficients.names(),
    np.log([0.9, 0.3, 0.9]),
    np.log([0.5, 1e-3, 0.5]),
    np.log([1.2, 5.0, 2.0]),
)


@dataclass(frozen=True)
class Case:
    """A measured problem and tile; ``predict``: its time by coefficients, ``blind`` without the binary's facts."""

    chip: str
    op: str
    gemm: GroupedGemm
    predict: "Model"
    blind: "Model | None"
    groups: str
    config: str
    us: float

    @property
    def tile(self) -> str:
        """The part of the configuration that the model reads."""
        read = {name: value for name, value in json.loads(self.config).items() if value is not None}
        return json.dumps({name: read[name] for name in sorted(read) if name.startswith(("block", "tile", "num"))})

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.gemm.k, self.gemm.n, len(self.gemm.rows)

    @property
    def problem(self) -> tuple[Any, ...]:
        """Whatever the kernel."""
        return self.gemm.total_rows, *self.shape, self.groups


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
        gemm = GroupedGemm("down", group_sizes(spread, m, groups), k, n, m, "bfloat16", accumulates=False)
        try:
            models: tuple[Model, Model | None] | None
            if isinstance(chip, GpuChip):
                models = of_gpu(chip, gemm, config, tables)
            else:
                models = of_tpu(TpuChip.of(chip), gemm, config, tables)
        except (UserError, NoTileError) as error:
            refused.append(str(error))
            continue
        if models is not None:
            found.append(Case(chip_name, op, gemm, *models, spread, config, float(np.median(us))))
    return found, refused


Model = Callable[[np.ndarray], float]


def of_gpu(chip: GpuChip, gemm: GroupedGemm, config: str, tables: Tables) -> tuple[Model, Model] | None:
    kernel = kernel_for(chip, ragged_dot.KERNEL)
    tile = gemm_tile({"tile": config}, chip, kernel, gemm)
    if tile is None:
        return None
    table = tables.get(chip, kernel, "down", "bfloat16", only=tile)
    if not len(table):
        raise NoTileError(f"{chip.name}: {next(iter(table.refused.values()))}")
    # As a tuner may assume who has no binary: as many registers as there are, and nothing but products.
    unknown = {"registers": 255.0, "shared_bytes": 0.0, "loop_instructions": 0.0}
    columns = table.columns | {name: np.array([value]) for name, value in unknown.items()}
    blind = dataclasses.replace(table, columns=columns)

    def model(table: TileTable) -> Model:
        def predict(values: np.ndarray) -> float:
            return float(
                ragged_dot.tile_times(
                    table, gemm, fitted_ragged_dot.RaggedDotGpuCoefficients.from_array(values)
                ).total_us[0]
            )

        return predict

    return model(table), model(blind)


def of_tpu(chip: TpuChip, gemm: GroupedGemm, config: str, tables: Tables) -> tuple[Model, None] | None:
    data = json.loads(config)
    if data.get("tile_m") is None:
        return None
    tile = data["tile_m"], data["tile_k"], data["tile_n"]

    def predict(values: np.ndarray) -> float:
        coefficients = fitted_ragged_dot.RaggedDotTpuCoefficients.from_array(values)
        return sum(ragged_dot_tpu.time_parts(chip, gemm, tile, coefficients).values())

    return predict, None


def predict(logs: np.ndarray, some: list[Case]) -> np.ndarray:
    return np.array([case.predict(np.exp(logs)) for case in some])


def range_of(some: list[Case]) -> Range:
    return GPU if isinstance(load_chip(some[0].chip), GpuChip) else TPU


def fit(some: list[Case], *, walk: bool = True) -> np.ndarray:
    """Logarithms of the coefficients; without a GPU's walk over groups, which is then held at next to nothing."""
    measured = np.log([case.us for case in some])
    within = range_of(some)
    high = within.high if walk else np.array([*within.high[:-1], within.low[-1] + 1e-3])
    solved = least_squares(
        lambda logs: np.log(predict(logs, some)) - measured,
        np.minimum(within.start, high - 1e-4),
        bounds=(within.low, high),
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


def without_facts(some: list[Case]) -> list[Case]:
    return [dataclasses.replace(case, predict=case.blind or case.predict) for case in some]


@dataclass(frozen=True)
class Choice:
    """Of a problem measured with several tiles: the one named best, and the best, with their times."""

    problem: tuple[Any, ...]
    named: str
    named_us: float
    best: str
    best_us: float

    @property
    def loss(self) -> float:
        return self.named_us / self.best_us - 1.0


def choices(some: list[Case], predicted: np.ndarray, *, together: bool) -> list[Choice]:
    """The choice at each problem.

    Args:
        together: a tile's time is the least over the kernels that ran it (the model knows of tiles, not of kernels);
            else each kernel's problems stand alone.
    """
    by_problem: dict[tuple[Any, ...], dict[str, tuple[float, float]]] = defaultdict(dict)
    for case, guess in zip(some, predicted, strict=True):
        tiles = by_problem[case.problem if together else (case.op, *case.problem)]
        tiles[case.tile] = min(tiles.get(case.tile, (np.inf, 0.0)), (case.us, float(guess)))
    return [_choice(problem, tiles) for problem, tiles in by_problem.items() if len(tiles) > 1]


def _choice(problem: tuple[Any, ...], tiles: dict[str, tuple[float, float]]) -> Choice:
    """``tiles``: measured and predicted time of each."""
    named = min(tiles, key=lambda tile: tiles[tile][1])
    best = min(tiles, key=lambda tile: tiles[tile][0])
    return Choice(problem, named, tiles[named][0], best, tiles[best][0])


def regret(found: list[Choice]) -> str:
    """How often the best is named, the mean loss of the named one, and the worst."""
    losses = [choice.loss for choice in found]
    return f"{losses.count(0.0)} of {len(losses)}, {np.mean(losses):.1%}, {max(losses):.0%}" if losses else "-"


def worst(alone: list[Choice], together: list[Choice]) -> str:
    """The worst choice, and what the tile that was named took in the kernel that ran it fastest."""
    choice = max(alone, key=lambda choice: choice.loss)
    elsewhere = [one.named_us for one in together if one.problem == choice.problem[1:] and one.named == choice.named]
    other = f"; by another kernel {elsewhere[0]:,.0f} us" if elsewhere and elsewhere[0] < choice.named_us else ""
    return (
        f"{' '.join(map(str, choice.problem))}: named {choice.named}, {choice.named_us:,.0f} us{other}; best "
        f"{choice.best}, {choice.best_us:,.0f} us."
    )


def errors(measured: np.ndarray, predicted: np.ndarray) -> str:
    """Mean and median."""
    found = np.abs(predicted / measured - 1.0)
    return f"{found.mean():.1%} / {np.median(found):.1%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ragged", type=Path, required=True)
    found, refused = cases(parser.parse_args().ragged, Tables(jobs=2))
    toml, lines, worst_of = [], [], []
    for chip in DEVICES.values():
        is_gpu = isinstance(load_chip(chip), GpuChip)
        some = [case for case in found if case.chip == chip]
        measured, shapes = np.array([case.us for case in some]), len({case.shape for case in some})
        logs, out = fit(some), held_out(some)
        low, high = np.quantile(measured / out, [0.05, 0.95])
        furthest = np.abs(out / measured - 1.0).max()
        alone, together = (choices(some, out, together=together) for together in (False, True))
        if is_gpu and alone:
            worst_of.append(f"{chip}, {worst(alone, together)}")
        lines.append(
            f"| {chip} | {len(some)} | {shapes} | {errors(measured, predict(logs, some))} | {errors(measured, out)} "
            f"| {furthest:.0%} | {errors(measured, predict(fit(some, walk=False), some)) if is_gpu else '-'} "
            f"| {errors(measured, held_out(without_facts(some))) if is_gpu else '-'} | {low:.2f} .. {high:.2f} "
            f"| {regret(alone)} | {regret(together)} |"
        )
        toml += [
            f"\n[{chip}]  # {len(some)} times of {shapes} shapes, error on those left out {errors(measured, out)}",
            *(f"{name} = {value:.4g}" for name, value in zip(range_of(some).names, np.exp(logs), strict=True)),
            f"low = {min(low, 1.0):.3f}",
            f"high = {max(high, 1.0):.3f}",
        ]
    FITTED.write_text(
        "# Coefficients of cost/ragged_dot.py and ragged_dot_tpu.py, fitted by benchmarks/ragged_dot.py to times of\n"
        "# tokamax' autotuning caches (Apache-2.0; bf16, forward). Errors are mean / median. low, high: 5th and 95th\n"
        "# percentile of measured over predicted time on shapes that the fit had not seen.\n" + "\n".join(toml) + "\n"
    )
    OUT.write_text(
        "# Public grouped matmuls: predicted against measured\n\n"
        f"Made by `python benchmarks/ragged_dot.py --ragged FILE` with {compiler_version('triton')}; what is measured, "
        "and which binaries stand for it, is told at the head of the script. Errors are mean / median of |predicted / "
        "measured - 1|; interval: 5th to 95th percentile of measured / predicted on shapes left out.\n\n"
        "| chip | times | shapes (K, N, groups) | error of the fit | on shapes left out | worst of them | of a fit "
        "without the walk | on shapes left out without the binary's facts | interval | best tile named, mean regret, "
        "worst | kernels together |\n|---|---|---|---|---|---|---|---|---|---|---|\n"
        + "\n".join(lines)
        + "\n\nThe walk: every program of these kernels finds its group by walking the groups' sizes, one dependent "
        "load after the other. With 256 groups and K = 512 it is most of the time. The binary's facts do not help "
        "here: the binary is of our kernel, and theirs seems to take more registers on the H100. Time for spilled "
        "registers was tried, and made shapes left out worse on the B200.\n\n"
        "Best tile: of the problems that a kernel was measured at with several tiles; then of all kernels of a chip "
        "together, a tile's time being the least of theirs: the model knows of tiles, not of kernels. "
        f"Worst (kernel, rows, K, N, groups): {' '.join(worst_of)}\n\n"
        "Two problems of eight groups on tpu7x (8192 x 4096 x 14336 and 4096 x 4096 x 4096), said to be of random "
        "groups, took exactly as long as the same in equal groups or in a single one; they are predicted for random "
        "groups here, and are the worst there.\n\n"
        f"Left out, {len(refused)}: {'; '.join(sorted(set(refused))) or 'none'}.\n"
    )
    print(OUT.read_text())


if __name__ == "__main__":
    main()
