"""Fit the cost model of our own kernels to races of their tiles on a device: physics first, then trees on the rest.

A race is one GEMM (of a layer's rank: ``gate_up`` or ``down``) run with many tiles; benchmarks/gpu/tiles.py makes a
table of them. All tiles of a shape are left out together when the fit is judged.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moe_codesign.arrays import F64
from moe_codesign.calibrations.ours import OurCalibration, OurCoefficients, OurFile
from moe_codesign.chips import GpuChip
from moe_codesign.cost.ours import gpu
from moe_codesign.cost.ours.gpu_tiles import GpuTiles
from moe_codesign.cost.ours.gpu_work import work_of
from moe_codesign.cost.ours.learned import OurModel, features
from moe_codesign.domain.grouped_gemms import GroupedGemms
from moe_codesign.errors import UserError
from moe_codesign.fitting.races import Race
from moe_codesign.fitting.trees import learn
from moe_codesign.versions import compiler_version
from moe_kernels.tile import TileConfig
from moe_kernels.triton.formats import FORMATS

START = OurCoefficients(
    overlap=2.0, matrix=1.2, alone=0.3, legacy=2.0, issue=1.0, shared=1.0, latency=2.0, fetch=1.0, edge=3.0,
    epilogue=2.0, waves=1.0, memory=1.1, rows=2.0, reread=0.5, l2=1.0, add=4.0, launch_us=4.0,
)  # fmt: skip
"""Where the shipped fit begins: round numbers that no race has touched."""
_FEWEST_RACES, _FEWEST_SHAPES, _FEWEST_SHAPES_OF_A_TYPE = 8, 3, 2
_COVERAGE = 0.9


def physics_us(x: OurCoefficients, race: Race, *, dirty: float = 1.0) -> F64:
    """By the physics, for a device timed as it was."""
    return gpu.tile_times(race.table, race.gemm, x, dirty=dirty * race.dirty).total_us


def fit_physics(races: Sequence[Race], start: OurCoefficients) -> tuple[OurCoefficients, float]:
    """OurCoefficients, and what part of the L2 was written back where it was flushed by writing.

    Races of 4-bit weights are left to the trees: unpacking waits between loads and products, which no term tells.
    """
    from scipy.optimize import least_squares

    races = [race for race in races if FORMATS[race.gemm.dtype].weight_bits > 4] or races

    def wrong(logs: F64) -> F64:
        x, dirty = OurCoefficients.from_logs(logs[:-1]), float(np.exp(logs[-1]))
        return np.concatenate(
            [(np.log(physics_us(x, race, dirty=dirty)) - np.log(race.latency_us)) * race.weight for race in races]
        )

    first = np.append(start.logs(), np.log(0.8))
    # Within a factor of seven: a coefficient that the races say nothing of stays about where it was.
    solved = least_squares(
        wrong, first, bounds=(first - 2.0, first + 2.0), loss="soft_l1", f_scale=0.003, x_scale=0.3, max_nfev=60
    )
    return OurCoefficients.from_logs(solved.x[:-1]), float(np.exp(solved.x[-1]))


def calibrate(
    chip: GpuChip, races: Sequence[Race], source: str, start: OurCoefficients
) -> tuple[OurCalibration, list["Judged"]]:
    """OurCoefficients, trees and interval; and each race as a fit without its shape has it.

    Raises:
        UserError: too few races or shapes.
    """
    shapes = sorted({race.shape for race in races})
    if len(races) < _FEWEST_RACES or len(shapes) < _FEWEST_SHAPES:
        raise UserError(
            f"{len(races)} races of {len(shapes)} shapes are too few",
            fix=f"race {_FEWEST_RACES} GEMMs of {_FEWEST_SHAPES} shapes or more",
        )
    x, dirty = fit_physics(races, start)
    judged = [
        one
        for shape in shapes
        for one in judge(
            fitted(chip, [race for race in races if race.shape != shape], start),
            [race for race in races if race.shape == shape],
        )
    ]
    ours = _learned(chip, races, x, dirty)
    if ours.trees is None:
        raise UserError("no type was raced with two shapes", fix="race a second shape in the same type")
    file = ours.file
    file = file.model_copy(
        update={
            "source": source,
            "log_width": {
                dtype: _width([one for one in judged if one.race.gemm.dtype == dtype]) for dtype in file.log_width
            },
            "error": float(np.mean([one.error for one in judged])),
            "regret": float(np.mean([one.regret for one in judged])),
            "physics_error": float(np.mean([one.physics_error for one in judged])),
            "physics_regret": float(np.mean([one.physics_regret for one in judged])),
        }
    )
    return dataclasses.replace(ours, file=file), judged


def _width(judged: Sequence["Judged"]) -> float:
    return float(np.quantile(np.concatenate([one.log_errors for one in judged]), _COVERAGE))


@dataclass(frozen=True)
class Judged:
    """One race by a model that has not seen its shape.

    Args:
        error, physics_error: mean absolute relative error over the good tiles. regret, physics_regret: loss of the tile
            named best against the fastest. log_errors: absolute, of the good tiles.
    """

    race: Race
    error: float
    regret: float
    physics_error: float
    physics_regret: float
    log_errors: F64
    named: TileConfig
    best: TileConfig


def judge(ours: tuple[OurModel, float], races: Sequence[Race]) -> list[Judged]:
    """Each race by a fit and its share of the L2 that is written back."""
    model, dirty = ours
    found = []
    for race in races:
        physics = physics_us(model.calibration.coefficients, race, dirty=dirty)
        predicted = model.tile_times(race.table, race.gemm).total_us
        predicted = predicted * physics / physics_us(model.calibration.coefficients, race, dirty=0.0)
        good, fastest = race.good, race.latency_us.min()
        wrong = [np.abs(guess / race.latency_us - 1.0)[good].mean() for guess in (predicted, physics)]
        loss = [race.latency_us[guess.argmin()] / fastest - 1.0 for guess in (predicted, physics)]
        found.append(
            Judged(
                race=race,
                error=float(wrong[0]),
                regret=float(loss[0]),
                physics_error=float(wrong[1]),
                physics_regret=float(loss[1]),
                log_errors=np.abs(np.log(predicted / race.latency_us))[good],
                named=race.table.tiles[int(predicted.argmin())],
                best=race.table.tiles[int(race.latency_us.argmin())],
            )
        )
    return found


def fitted(
    chip: GpuChip,
    races: Sequence[Race],
    start: OurCoefficients,
    physics: tuple[OurCoefficients, float] | None = None,
) -> tuple[OurModel, float]:
    """Physics and trees, and the share of the L2 that was written back.

    ``physics``: coefficients and that share by :func:`fit_physics` of more races, if at hand.
    """
    x, dirty = physics or fit_physics(races, start)
    return OurModel(_learned(chip, races, x, dirty), chip.name), dirty


def without_trees(chip: GpuChip, races: Sequence[Race], start: OurCoefficients) -> tuple[OurModel, float]:
    """As :func:`fitted`, physics alone."""
    x, dirty = fit_physics(races, start)
    return OurModel(OurCalibration(_file_of(chip, races, x, ()), None), chip.name), dirty


def _learned(chip: GpuChip, races: Sequence[Race], x: OurCoefficients, dirty: float) -> OurCalibration:
    shapes: dict[str, set[str]] = defaultdict(set)
    for race in races:
        shapes[race.gemm.dtype].add(race.shape)
    # What one shape alone says of a type cannot be asked of another.
    types = sorted(dtype for dtype, some in shapes.items() if len(some) >= _FEWEST_SHAPES_OF_A_TYPE)
    inputs, rest, weights = [], [], []
    for race in (race for race in races if race.gemm.dtype in types):
        # The trees see the time of a clean L2, as they will.
        tiles, gemms = GpuTiles.of(race.table, race.gemm.dtype), GroupedGemms.of([race.gemm])
        work = work_of(tiles, gemms)
        inputs.append(features(tiles, gemms, work, gpu.times_of(tiles, work, x))[:, 0].T)
        rest.append(np.log(race.latency_us / physics_us(x, race, dirty=dirty)))
        weights.append(race.weight)
    trees = learn(np.concatenate(inputs), np.concatenate(rest), np.concatenate(weights)) if inputs else None
    return OurCalibration(_file_of(chip, races, x, types), trees)


def _file_of(chip: GpuChip, races: Sequence[Race], x: OurCoefficients, types: Sequence[str]) -> OurFile:
    """The file before anything was judged: widths and errors are 0."""
    return OurFile(
        chip=chip.name,
        source="",
        compiled_by=compiler_version(chip.backend),
        races=len(races),
        rows=sum(len(race.latency_us) for race in races),
        unnamed_routing=sum(race.unnamed_routing for race in races),
        log_width=dict.fromkeys(types, 0.0),
        most_rows={dtype: max(race.mean_rows for race in races if race.gemm.dtype == dtype) for dtype in types},
        coefficients=dataclasses.asdict(x),
        error=0.0,
        regret=0.0,
        physics_error=0.0,
        physics_regret=0.0,
    )
