"""Fit the models of public ragged_dot kernels to tokamax' published times, chip by chip.

On GPUs a kernel of ours, compiled with the tile that ran, stands for theirs; on TPUs (tokamax' first kernel, a
descendant of megablox; one core) the model needs no binary. Every (K, N, groups) is once left out of the fit and
predicted by it: the interval is made of those errors.
"""

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from moe_codesign.arrays import F64
from moe_codesign.calibrations.ragged_dot import RaggedDotGpuCoefficients, RaggedDotTpuCoefficients
from moe_codesign.chips import GpuChip, TpuChip, load_chip
from moe_codesign.compiler.kernels import kernel_for
from moe_codesign.compiler.tile_table import Tables, TileTable
from moe_codesign.cost.estimate import NoTileError
from moe_codesign.cost.ragged_dot import gpu, tpu
from moe_codesign.domain.grouped_gemm import GroupedGemm
from moe_codesign.errors import UserError
from moe_codesign.formats.tile_columns import gemm_tile
from moe_codesign.formats.tokamax import RaggedDotTime

Model = Callable[[F64], float]
"""Time in us by coefficients, in the order of their class's fields."""
_COVERAGE = (0.05, 0.95)
_HEAD = """\
# Coefficients of cost/ragged_dot/, fitted by benchmarks/shipped/ragged_dot.py to times of tokamax' autotuning caches
# (Apache-2.0; bf16, forward). Errors are mean / median. low, high: 5th and 95th percentile of measured over predicted
# time on shapes that the fit had not seen."""


@dataclass(frozen=True)
class Range:
    """Names of the coefficients, logarithms of where a fit starts and of what holds it."""

    names: tuple[str, ...]
    start: F64
    low: F64
    high: F64


ON_GPU = Range(
    RaggedDotGpuCoefficients.names(),
    np.log([0.8, 5.0, 0.1]),
    np.log([0.3, 0.05, 1e-3]),
    np.log([0.95, 1000.0, 2.0]),
)
ON_TPU = Range(
    RaggedDotTpuCoefficients.names(),
    np.log([0.9, 0.3, 0.9]),
    np.log([0.5, 1e-3, 0.5]),
    np.log([1.2, 5.0, 2.0]),
)


@dataclass(frozen=True)
class Case:
    """A measured problem, and its time by coefficients.

    Args:
        time: what was measured.
        gemm: the problem.
        predict: its time by coefficients.
        blind: the same without the binary's facts, of a GPU; of a TPU, whose model has none, the same function.
    """

    time: RaggedDotTime
    gemm: GroupedGemm
    predict: Model
    blind: Model

    @property
    def shape(self) -> tuple[int, int, int]:
        """(K, N, groups), by which cases are left out together."""
        return self.gemm.k, self.gemm.n, len(self.gemm.rows)


def cases_of(times: Sequence[RaggedDotTime], tables: Tables) -> tuple[list[Case], list[str]]:
    """The cases whose tile compiles, and why others do not. A time without a tile is passed over."""
    cases, refused = [], []
    for time in times:
        chip = load_chip(time.chip)
        gemm = GroupedGemm("down", time.rows, time.k, time.n, time.m, "bfloat16", accumulates=False)
        try:
            if isinstance(chip, GpuChip):
                models = _on_gpu(chip, gemm, time.config, tables)
            else:
                models = _on_tpu(TpuChip.of(chip), gemm, time.config)
        except (UserError, NoTileError) as error:
            refused.append(str(error))
            continue
        if models is not None:
            cases.append(Case(time, gemm, *models))
    return cases, refused


def _on_gpu(chip: GpuChip, gemm: GroupedGemm, config: str, tables: Tables) -> tuple[Model, Model] | None:
    kernel = kernel_for(chip, gpu.KERNEL)
    tile = gemm_tile({"tile": config}, chip, kernel, gemm)
    if tile is None:
        return None
    table = tables.get(chip, kernel, "down", "bfloat16", only=tile)
    if not len(table):
        raise NoTileError(f"{chip.name}: {next(iter(table.refused.values()))}")
    # What a tuner may assume that has no binary: as many registers as there are, and nothing but products.
    unknown = {"registers": 255.0, "shared_bytes": 0.0, "loop_instructions": 0.0}
    columns = table.columns | {name: np.array([value]) for name, value in unknown.items()}

    def model(table: TileTable) -> Model:
        def predict(values: F64) -> float:
            coefficients = RaggedDotGpuCoefficients.from_array(values.tolist())
            return float(gpu.tile_times(table, gemm, coefficients).total_us[0])

        return predict

    return model(table), model(dataclasses.replace(table, columns=columns))


def _on_tpu(chip: TpuChip, gemm: GroupedGemm, config: str) -> tuple[Model, Model] | None:
    data = json.loads(config)
    if data.get("tile_m") is None:
        return None
    tile = data["tile_m"], data["tile_k"], data["tile_n"]

    def predict(values: F64) -> float:
        coefficients = RaggedDotTpuCoefficients.from_array(values.tolist())
        return sum(tpu.time_parts(chip, gemm, tile, coefficients).values())

    return predict, predict


def measured_us(cases: Sequence[Case]) -> F64:
    """What was measured."""
    return np.array([case.time.us for case in cases])


def predicted_us(logs: F64, cases: Sequence[Case]) -> F64:
    """Times by the logarithms of coefficients."""
    return np.array([case.predict(np.exp(logs)) for case in cases])


def range_of(cases: Sequence[Case]) -> Range:
    """What holds the fit of one chip's cases."""
    return ON_GPU if isinstance(load_chip(cases[0].time.chip), GpuChip) else ON_TPU


def fit(cases: Sequence[Case], *, walk: bool = True) -> F64:
    """Logarithms of one chip's coefficients.

    Args:
        cases: of one chip.
        walk: whether a GPU's programs walk over the groups; if not, that coefficient is held at next to nothing.
    """
    from scipy.optimize import least_squares

    measured = np.log(measured_us(cases))
    within = range_of(cases)
    high = within.high if walk else np.array([*within.high[:-1], within.low[-1] + 1e-3])
    solved = least_squares(
        lambda logs: np.log(predicted_us(logs, cases)) - measured,
        np.minimum(within.start, high - 1e-4),
        bounds=(within.low, high),
        loss="soft_l1",
        f_scale=0.05,
    )
    return np.asarray(solved.x)


def held_out_us(cases: Sequence[Case]) -> F64:
    """The time of each case by a fit without its shape."""
    predicted = np.full(len(cases), np.nan)
    for shape in {case.shape for case in cases}:
        left = [i for i, case in enumerate(cases) if case.shape == shape]
        fitted = fit([case for case in cases if case.shape != shape])
        predicted[left] = predicted_us(fitted, [cases[i] for i in left])
    return predicted


def without_facts(cases: Sequence[Case]) -> list[Case]:
    """The same cases by models that do not know the binary."""
    return [dataclasses.replace(case, predict=case.blind) for case in cases]


def interval(cases: Sequence[Case], held_out: F64) -> tuple[float, float]:
    """5th and 95th percentile of measured over predicted time on shapes that the fit had not seen."""
    low, high = np.quantile(measured_us(cases) / held_out, _COVERAGE)
    return float(low), float(high)


def errors_text(measured: F64, predicted: F64) -> str:
    """Mean and median of the relative error."""
    errors = np.abs(predicted / measured - 1.0)
    return f"{errors.mean():.1%} / {np.median(errors):.1%}"


def toml_of(by_chip: dict[str, list[Case]]) -> str:
    """The text of calibrations/ragged_dot.toml: a fit for each chip, and its interval."""
    lines = [_HEAD]
    for chip, cases in by_chip.items():
        logs, out = fit(cases), held_out_us(cases)
        low, high = interval(cases, out)
        shapes = len({case.shape for case in cases})
        error = errors_text(measured_us(cases), out)
        lines += [
            f"\n[{chip}]  # {len(cases)} times of {shapes} shapes, error on those left out {error}",
            *(f"{name} = {value:.4g}" for name, value in zip(range_of(cases).names, np.exp(logs), strict=True)),
            f"low = {min(low, 1.0):.3f}",
            f"high = {max(high, 1.0):.3f}",
        ]
    return "\n".join(lines) + "\n"


def by_chip(cases: Sequence[Case]) -> dict[str, list[Case]]:
    """Cases of each chip, in the order of their first."""
    found: dict[str, list[Case]] = {}
    for case in cases:
        found.setdefault(case.time.chip, []).append(case)
    return found


def write(path: Path, cases: Sequence[Case], chips: Sequence[str]) -> None:
    """Fit those chips and write the file."""
    every = by_chip(cases)
    path.write_text(toml_of({chip: every[chip] for chip in chips}), encoding="utf-8")
