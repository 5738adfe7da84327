"""Estimates of problems in no fit, beside their measured times: what a law of ratios is fitted to.

Each model is asked about layers or GEMMs whose shape it has not seen; :mod:`moe_codesign.fitting.ratio_law` fits.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moe_codesign.arrays import F64
from moe_codesign.calibrations.catalogue import UNKNOWN_INTERVAL
from moe_codesign.calibrations.ours import OurCoefficients
from moe_codesign.calibrations.ratios import RatioLaw
from moe_codesign.chips import GpuChip, load_chip
from moe_codesign.compiler.tile_table import Tables
from moe_codesign.cost.bound import layer_bound
from moe_codesign.cost.datasheet import HIGH, datasheet, layer_slowdown
from moe_codesign.cost.ours.times import layer_times
from moe_codesign.cost.stacks import shipped
from moe_codesign.domain.rank import RankWork, rank_work
from moe_codesign.domain.rank_works import RankWorks
from moe_codesign.errors import UserError
from moe_codesign.fitting.measured import Measured
from moe_codesign.fitting.ours import START, fit_physics, fitted, physics_us
from moe_codesign.fitting.races import Race
from moe_codesign.fitting.ratio_law import Estimates
from moe_codesign.fitting.stack_sets import Which, load_split
from moe_codesign.fitting.stacks import out_of_fold_us
from moe_codesign.formats.aiconfigurator import aiconfigurator_rows, renamed
from moe_codesign.formats.problem_rows import measured_layer

_TOKENS = (1, 8, 16, 64, 128, 512, 1024, 4096, 16384)
_LAYERS = 700
"""Layers of a set that are asked about, and tokens of their batches."""
RACED = ("bfloat16", "fp8_block")
"""Data types that were raced with shapes enough, and whose times are near the measured ones."""
_UNRACED = 2.0
"""Factor on the errors of tiles where none was raced. Chosen: there are no rows to ask."""
SIMULATED = RatioLaw(
    near=1 / 3,
    far=1 / 3,
    scale=1.0,
    tiles=1 / 3,
    pairs=0,
    source="chosen: about a generation's own constant, published forward products err by up to 2 to 21 % "
    "(results/tpu_validation.md, plan, all but the first kernel on tpu7x), which is 0.25 as a log ratio at most",
)
"""Of times by a TPU's static cycles, of which too few shapes are published."""


def estimates_of(name: str, data: Measured, latency_us: F64, high_us: F64) -> Estimates:
    """Estimates of measured layers of a stack, as one rank has their sizes.

    Args:
        name: of the set.
        data: the measured rows.
        latency_us: their estimates.
        high_us: the upper ends of these.
    """
    c = data.columns
    tp = np.array([int(key.split("-")[1]) for key in data.shape_key]) // c.width
    # Limited choices stand beside others of their kind.
    kinds = np.unique([re.sub(r"/\d+/\d+$", "", str(kind)) for kind in data.routing], return_inverse=True)[1]
    cells = np.stack([c.num_tokens, kinds, c.experts / c.local_experts, tp, c.gated])
    return Estimates(
        name=name,
        log_error=np.log(latency_us / data.latency_us),
        log_width=np.log(high_us / latency_us),
        log_sizes=np.log(np.stack([c.hidden, c.width, c.local_experts, c.top_k, c.num_tokens], axis=1)),
        shape_key=data.shape_key,
        workload=np.unique(cells, axis=1, return_inverse=True)[1].ravel(),
    )


def stack_estimates(which: Which) -> Estimates:
    """A set's rows outside of the test split by its shipped physics and trees that have not seen their shape.

    Raises:
        UserError: aiconfigurator-core or catboost is not installed.
    """
    data, _ = load_split(which)
    calibration = shipped.find(data.chip, data.stack, data.dtype, shipped_only=True).value
    stated = calibration.predict(data.chip, data.columns)
    latency = out_of_fold_us(calibration, data)
    return estimates_of(" ".join(which), data, latency, latency * stated.high_us / stated.latency_us)


def stack_estimates_of_test(which: Which) -> Estimates:
    """A set's rows of the test split, whose shapes are in no fit, by its shipped calibration."""
    return _said(which, "")  # its own chip is not left out


def stack_estimates_elsewhere(which: Which, *, test: bool = False) -> Estimates | None:
    """A set's rows by the calibration of the most similar other chip, which has seen none of them.

    Args:
        which: the set.
        test: rows of the test split, instead of those outside.

    Returns:
        None where no other chip has a calibration of that stack and data type.
    """
    try:
        return _said(which, which[0], test=test)
    except UserError:
        return None


def _said(which: Which, without: str, *, test: bool = True) -> Estimates:
    data = load_split(which)[test]
    found = shipped.find(data.chip, data.stack, data.dtype, without=without or None, shipped_only=True)
    said = found.value.predict(data.chip, data.columns)
    return estimates_of(" ".join(which), data, said.latency_us, said.high_us)


@dataclass(frozen=True)
class Layers:
    """Measured layers that ran on one rank, as questions to a model that knows nothing of them.

    Args:
        name: of the set.
        chip: where.
        works: what the rank did.
        latency_us: float64 [rows].
        log_sizes, shape_key, workload: as of :class:`Estimates`.
    """

    name: str
    chip: GpuChip
    works: list[RankWork]
    latency_us: F64
    log_sizes: F64
    shape_key: npt.NDArray[np.str_]
    workload: npt.NDArray[np.int64]

    def estimates(self, latency_us: F64, log_width: float) -> Estimates:
        """The set with these estimates of it, where they are numbers, and one half-width for all."""
        known = np.isfinite(latency_us)
        every = Estimates(
            self.name,
            np.log(latency_us / self.latency_us),
            np.full(len(latency_us), log_width),
            self.log_sizes,
            self.shape_key,
            self.workload,
        )
        return every.take(known)


def layers_of(which: Which) -> Layers:
    """Gated layers that aiconfigurator-core timed on one rank at :data:`_TOKENS`, drawn by chance.

    Raises:
        UserError: aiconfigurator-core is not installed.
    """
    name, stack, dtype = which
    chip = GpuChip.of(load_chip(name))
    rows, _ = aiconfigurator_rows(chip, stack, dtype)
    some = [row for row in map(renamed, rows) if int(row["ep"]) == 1 and int(row["num_tokens"]) in _TOKENS]
    order = np.random.default_rng(0).permutation(len(some))
    works, times, sizes, keys, kinds = [], [], [], [], []
    for row in (some[place] for place in order):
        shape, workload = measured_layer(row, dtype)
        work = rank_work(shape, workload)
        if not shape.gated or float(row["latency_us"]) < layer_bound(chip, work).us:
            continue
        works.append(work)
        times.append(float(row["latency_us"]))
        sizes.append(
            (shape.hidden_size, work.intermediate_size, shape.num_experts, shape.num_experts_per_tok,
             workload.num_tokens)
        )  # fmt: skip
        keys.append(shape.label())
        kinds.append(f"{workload.num_tokens} {workload.tp} {re.sub(r'/[0-9]+/[0-9]+$', '', str(workload.routing))}")
        if len(works) == _LAYERS:
            break
    return Layers(
        name=" ".join(which),
        chip=chip,
        works=works,
        latency_us=np.array(times),
        log_sizes=np.log(np.array(sizes, dtype=float)),
        shape_key=np.array(keys),
        workload=np.unique(kinds, return_inverse=True)[1],
    )


def sheet_estimates(layers: Layers) -> Estimates:
    """Layers by the roofline of their chip's data sheet, with the upper end of its interval."""
    bounds = [layer_bound(layers.chip, work) for work in layers.works]
    us = [datasheet(bound, layer_slowdown(layers.chip), "").timing.latency_us for bound in bounds]
    return layers.estimates(np.array(us), float(np.log(HIGH)))


def our_estimates(layers: Layers, tables: Tables) -> Estimates:
    """Layers of other software by the model of our kernels at their best tiles, on a chip where none was raced.

    What differs between our kernel and theirs counts as an error, so that the law is rather too wide than too narrow.
    """
    times = layer_times(tables, layers.chip, RankWorks.of(layers.works), space={})
    us = np.array(times.latency_us, dtype=float)
    us[list(times.refused)] = np.nan
    return layers.estimates(us, float(np.log(UNKNOWN_INTERVAL[1])))


def race_estimates(chip: GpuChip, races: Sequence[Race], log_width: float) -> tuple[list[Estimates], F64]:
    """Raced GEMMs by trees that have not seen their shape: the tile named best, and others near the fastest.

    Args:
        chip: where they were raced.
        races: every race.
        log_width: half-width of a layer's interval, which a search compares.

    Returns:
        One set for each data type that has an interval of its own; and how far two tiles of one race err apart, over
        the width of two independent times.
    """
    by_dtype: dict[str, list[tuple[Race, float]]] = defaultdict(list)
    tiles = [np.zeros(0)]
    # Seventeen numbers for tens of thousands of rows: as with the stacks, trees alone leave the shape out.
    physics = fit_physics(races, START)
    for shape in sorted({race.shape for race in races}):
        model, dirty = fitted(chip, [race for race in races if race.shape != shape], START, physics)
        for race in (race for race in races if race.shape == shape and race.gemm.dtype in RACED):
            x = model.calibration.coefficients
            flushed = physics_us(x, race, dirty=dirty) / physics_us(x, race, dirty=0.0)
            predicted = model.tile_times(race.table, race.gemm).total_us * flushed
            error = np.log(predicted / race.latency_us)
            best = int(predicted.argmin())
            by_dtype[race.gemm.dtype].append((race, float(error[best])))
            tiles.append(np.abs(error[race.good] - error[best]) / (np.sqrt(2.0) * log_width))
    found = []
    for dtype, some in by_dtype.items():
        gemms = [race.gemm for race, _ in some]
        sizes = [
            (g.k, g.n, max(g.active_groups, 1), g.total_rows / race.tokens, race.tokens)
            for g, (race, _) in zip(gemms, some, strict=True)
        ]
        kinds = [f"{race.gemm.op} {race.tokens}" for race, _ in some]
        found.append(
            Estimates(
                name=f"{chip.name} ours {dtype}",
                log_error=np.array([error for _, error in some]),
                log_width=np.full(len(some), log_width),
                log_sizes=np.log(np.array(sizes, dtype=float)),
                shape_key=np.array([race.shape for race, _ in some]),
                workload=np.unique(kinds, return_inverse=True)[1],
            )
        )
    return found, np.concatenate(tiles)


def tile_shares(races: Sequence[Race], x: OurCoefficients, log_width: float) -> F64:
    """How far two tiles of one race err apart by the physics alone, which is all that serves a chip without races.

    It is doubled, as the coefficients that serve such a chip are another one's.

    Args:
        races: of a chip that has some.
        x: coefficients of the physics.
        log_width: half-width of a layer's interval where no tiles were raced.
    """
    found = [np.zeros(0)]
    for race in (race for race in races if race.gemm.dtype in RACED):
        predicted = physics_us(x, race)
        error = np.log(predicted / race.latency_us)
        found.append(np.abs(error[race.good] - error[int(predicted.argmin())]) / (np.sqrt(2.0) * log_width))
    return _UNRACED * np.concatenate(found)
