"""Fit the cost model of our own kernels to races of their tiles on a device: physics first, then trees on the rest.

A race is one GEMM (of a layer's rank: ``gate_up`` or ``down``) run with many tiles; benchmarks/gpu/tiles.py makes a
table of them. All tiles of a shape are left out together when the fit is judged.
"""

import csv
import dataclasses
import gzip
import importlib.util
import json
import math
import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from moe_codesign.calibrating.fit import learn
from moe_codesign.chips import Chip
from moe_codesign.compiler import compile_all, requests_for
from moe_codesign.compiler.artifact import compiler_version
from moe_codesign.cost import gpu
from moe_codesign.cost.gpu import Coefficients
from moe_codesign.cost.native import Native, NativeFile, features
from moe_codesign.cost.problem import GroupedGemm, layer_gemms
from moe_codesign.cost.table import F64, Tables, TileTable, kernel_for, table_of
from moe_codesign.errors import UserError
from moe_codesign.rows import Row, layer_of, text
from moe_codesign.workload import rank_work
from moe_kernels.kernel import Kernel, Op
from moe_kernels.tile import TileConfig
from moe_kernels.triton.formats import FORMATS

OPS: tuple[Op, ...] = ("gate_up", "down")
GOOD = 1.5
"""Times the fastest: the tiles that a choice is among, of which errors are told. Slower ones are fitted, with less
weight."""
_FEWEST_RACES, _FEWEST_SHAPES, _FEWEST_SHAPES_OF_A_TYPE = 8, 3, 2
_COVERAGE = 0.9
_DIRTY = {"write": 1.0, "read": 0.0}
"""How the L2 was flushed: by writing, it is full of lines that must be written back on the clock."""


@dataclass(frozen=True)
class Race:
    """One GEMM with many tiles. ``table``: their binaries' facts, a row each; ``latency_us`` [rows].

    ``shape``: hidden-inter-experts-topk, by which races are left out together. ``dirty``: 1 where the L2 was flushed by
    writing.
    """

    gemm: GroupedGemm
    table: TileTable
    latency_us: F64
    shape: str
    tokens: int
    dirty: float

    @property
    def mean_rows(self) -> float:
        """Per expert that has any."""
        return self.gemm.total_rows / max(self.gemm.active_groups, 1)

    @property
    def good(self) -> "np.ndarray[Any, np.dtype[np.bool_]]":
        """Tiles near the fastest."""
        return np.asarray(self.latency_us < GOOD * self.latency_us.min())

    @property
    def weight(self) -> F64:
        """The nearer to the fastest the more, and races alike however many tiles they are of."""
        return np.asarray(self.latency_us.min() / self.latency_us / np.sqrt(len(self.latency_us)))


def read_races(path: Path, chip: Chip, *, jobs: int = 1) -> list[Race]:
    """Races of a table, or of every table (.csv, .csv.gz) of a folder.

    A row has the columns of `predict`, ``op`` (gate_up or down), ``tile`` (JSON), ``latency_us`` and ``flush``. Rows
    without a time are passed over. Every tile is compiled for the chip, whose facts the model reads.

    Raises:
        UserError: no such table, a row that is none, or no races in it.
    """
    if importlib.util.find_spec("catboost") is None:
        raise UserError("a fit needs catboost", mend='pip install "moe-codesign[calibrate]"')
    found = [path] if not path.is_dir() else sorted([*path.glob("*.csv"), *path.glob("*.csv.gz")])
    kernel = kernel_for(chip)
    rows = [row for one in found for row in _timed_rows(one, chip, kernel)]
    grouped: dict[tuple[str, str], dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    about = ("hidden_size", "moe_intermediate_size", "num_experts", "num_experts_per_tok", "num_tokens", "ep", "tp",
             "routing", "seed", "flush")  # fmt: skip
    for row in rows:
        grouped[str(row["op"]), text(row, "dtype", "bfloat16")][json.dumps([row.get(n) for n in about])].append(row)
    if not grouped:
        raise UserError(f"{path} holds no races", mend="make them with benchmarks/gpu/tiles.py")
    tables, races = Tables(jobs=jobs), []
    for (op, dtype), by_problem in grouped.items():
        tiles = dict.fromkeys(_tile(kernel.tile_type, row) for some in by_problem.values() for row in some)
        requests = requests_for(kernel, chip, (cast(Op, op),), dtype, list(tiles))
        artifacts = compile_all(requests.values(), tables.cache, jobs=jobs)
        table = table_of(kernel, chip, cast(Op, op), {tile: artifacts[r] for (_, tile), r in requests.items()})
        races += [race for some in by_problem.values() if (race := _race(some, table, dtype)) is not None]
    return races


def _timed_rows(path: Path, chip: Chip, kernel: Kernel) -> list[Row]:
    """Rows of races with a time. Raises UserError, which names the row, where one is none."""
    try:
        plain = path.read_bytes()
        lines = (gzip.decompress(plain) if path.suffix == ".gz" else plain).decode().splitlines()
        rows: list[Row] = list(csv.DictReader(lines))
    except (OSError, UnicodeDecodeError, zlib.error, EOFError, csv.Error) as error:
        raise UserError(f"{path} cannot be read ({error})", mend="give a table of races, .csv or .csv.gz") from None
    timed = []
    for number, row in enumerate(rows, 2):
        if row.get("op") not in OPS or not row.get("latency_us"):
            continue
        try:
            layer_of(row, text(row, "dtype", "bfloat16"))
            _tile(kernel.tile_type, row)
            if not 0 < float(row["latency_us"]) < math.inf:
                raise ValueError(f"latency_us = {row['latency_us']}")
            if text(row, "flush", "read") not in _DIRTY:
                raise ValueError(f"flush = {row['flush']!r}: give read or write")
            if text(row, "dtype", "bfloat16") not in kernel.dtypes:
                raise ValueError(f"dtype = {row['dtype']!r}: give one of {', '.join(kernel.dtypes)}")
            if text(row, "chip", chip.name) != chip.name:
                raise ValueError(f"chip = {row['chip']!r}, not {chip.name}")
        except (UserError, ValueError, KeyError, TypeError, OverflowError) as error:
            raise UserError(f"{path}, line {number}: {error}") from None
        timed.append(row)
    return timed


def _tile(kind: type[TileConfig], row: Row) -> TileConfig:
    return kind.from_dict(json.loads(str(row["tile"])))


def _race(rows: Sequence[Row], table: TileTable, dtype: str) -> Race | None:
    shape, workload = layer_of(rows[0], dtype)
    gemm = next(g for g in layer_gemms(rank_work(shape, workload)) if g.op == table.op)
    places, times = [], []
    for row in rows:
        place = table.index(_tile(table.kernel.tile_type, row))
        if place is not None:
            places.append(place)
            times.append(float(row["latency_us"]))
    if len(places) < 2:
        return None
    key = f"{shape.hidden_size}-{shape.moe_intermediate_size}-{shape.num_experts}-{shape.num_experts_per_tok}"
    part = table.rows(np.array(places))
    return Race(gemm, part, np.array(times), key, workload.num_tokens, _DIRTY[text(rows[0], "flush", "read")])


def physics_us(x: Coefficients, race: Race, *, dirty: float = 1.0) -> F64:
    """By the physics, for a device timed as it was."""
    return gpu.tile_times(race.table, race.gemm, x, dirty=dirty * race.dirty).total_us


def fit_physics(races: Sequence[Race], start: Coefficients) -> tuple[Coefficients, float]:
    """Coefficients, and what part of the L2 was written back where it was flushed by writing.

    Races of 4-bit weights are left to the trees: unpacking waits between loads and products, which no term tells.
    """
    from scipy.optimize import least_squares

    races = [race for race in races if FORMATS[race.gemm.dtype].weight_bits > 4] or races

    def wrong(logs: F64) -> F64:
        x, dirty = Coefficients.from_logs(logs[:-1]), float(np.exp(logs[-1]))
        return np.concatenate(
            [(np.log(physics_us(x, race, dirty=dirty)) - np.log(race.latency_us)) * race.weight for race in races]
        )

    first = np.append(start.logs(), np.log(0.8))
    # Within a factor of seven: a coefficient that the races say nothing of stays about where it was.
    solved = least_squares(
        wrong, first, bounds=(first - 2.0, first + 2.0), loss="soft_l1", f_scale=0.003, x_scale=0.3, max_nfev=60
    )
    return Coefficients.from_logs(solved.x[:-1]), float(np.exp(solved.x[-1]))


def calibrate(chip: Chip, races: Sequence[Race], source: str, start: Coefficients) -> tuple[Native, list["Judged"]]:
    """Coefficients, trees and interval; and each race as a fit without its shape has it.

    Raises:
        UserError: too few races or shapes.
    """
    shapes = sorted({race.shape for race in races})
    if len(races) < _FEWEST_RACES or len(shapes) < _FEWEST_SHAPES:
        raise UserError(
            f"{len(races)} races of {len(shapes)} shapes are too few",
            mend=f"race {_FEWEST_RACES} GEMMs of {_FEWEST_SHAPES} shapes or more",
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
    native = _learned(chip, races, x, dirty)
    assert native.file is not None
    if native.trees is None:
        raise UserError("no type was raced with two shapes", mend="race a second shape in the same type")
    file = native.file
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
    return dataclasses.replace(native, file=file), judged


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


def judge(native: tuple[Native, float], races: Sequence[Race]) -> list[Judged]:
    """Each race by a fit and its share of the L2 that is written back."""
    model, dirty = native
    found = []
    for race in races:
        physics = physics_us(model.coefficients, race, dirty=dirty)
        predicted = model.tile_times(race.table, race.gemm).total_us
        predicted = predicted * physics / physics_us(model.coefficients, race, dirty=0.0)
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


def fitted(chip: Chip, races: Sequence[Race], start: Coefficients) -> tuple[Native, float]:
    """Physics and trees, and the share of the L2 that was written back."""
    x, dirty = fit_physics(races, start)
    return _learned(chip, races, x, dirty), dirty


def _learned(chip: Chip, races: Sequence[Race], x: Coefficients, dirty: float) -> Native:
    shapes: dict[str, set[str]] = defaultdict(set)
    for race in races:
        shapes[race.gemm.dtype].add(race.shape)
    # What one shape alone says of a type cannot be asked of another.
    types = sorted(dtype for dtype, some in shapes.items() if len(some) >= _FEWEST_SHAPES_OF_A_TYPE)
    inputs, rest, weights = [], [], []
    for race in (race for race in races if race.gemm.dtype in types):
        # The trees see the time of a clean L2, as they will.
        work = gpu.work_of(race.table, race.gemm)
        inputs.append(features(race.table, race.gemm, work, gpu.times_of(work, x)))
        rest.append(np.log(race.latency_us / physics_us(x, race, dirty=dirty)))
        weights.append(race.weight)
    trees = learn(np.concatenate(inputs), np.concatenate(rest), np.concatenate(weights)) if inputs else None
    file = NativeFile(
        chip=chip.name,
        source="",
        compiled_by=compiler_version(chip.backend),
        races=len(races),
        rows=sum(len(race.latency_us) for race in races),
        log_width=dict.fromkeys(types, 0.0),
        most_rows={dtype: max(race.mean_rows for race in races if race.gemm.dtype == dtype) for dtype in types},
        coefficients=dataclasses.asdict(x),
        error=0.0,
        regret=0.0,
        physics_error=0.0,
        physics_regret=0.0,
    )
    return Native(x, file, trees)
