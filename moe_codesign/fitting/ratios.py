"""Fit how far two times of one model err apart: estimates of problems in no fit, their pairs, and a law of distance.

A row is one estimate beside its measured time. Two rows of one set (chip, stack, data type) make a pair if they ran
under the same kind of routing and split and are of different shapes. What the law gives is the share of independent
errors that is left in their ratio; see :class:`moe_codesign.calibrations.ratios.RatioLaw`.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moe_codesign.arrays import F64, Mask
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
from moe_codesign.fitting.stack_sets import Which, load_split
from moe_codesign.fitting.stacks import out_of_fold_us
from moe_codesign.formats.aiconfigurator import aiconfigurator_rows, renamed
from moe_codesign.formats.problem_rows import measured_layer

COVERAGE = 0.9
_AT_MOST = 40
"""Rows of one workload whose pairs are taken, drawn by chance where there are more: all pairs would be billions."""
_NEAR, _FAR = np.geomspace(0.1, 1.5, 40), np.geomspace(0.1, 2.5, 50)
"""Values that are tried. Hardly two measured shapes are nearer than a fifth, so that ``near`` is kept from 0."""
_SCALES = (0.25, 0.5, 1.0, 2.0)
_BINS = 24
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


@dataclass(frozen=True)
class Estimates:
    """Estimates of problems that were in no fit, beside their measured times.

    Args:
        name: of the set.
        log_error: log of estimate over measured, float64 [rows].
        log_width: half-width of the estimate's own interval, as a logarithm, float64 [rows].
        log_sizes: logarithms of the sizes that a distance counts, float64 [rows, 5]; see
            :data:`moe_codesign.calibrations.ratios.SIZES`.
        shape_key: the shape of each row.
        workload: a number for each kind of row that is compared, int64 [rows].
    """

    name: str
    log_error: F64
    log_width: F64
    log_sizes: F64
    shape_key: npt.NDArray[np.str_]
    workload: npt.NDArray[np.int64]

    def take(self, rows: Mask) -> "Estimates":
        """These rows."""
        return Estimates(
            self.name,
            self.log_error[rows],
            self.log_width[rows],
            self.log_sizes[rows],
            self.shape_key[rows],
            self.workload[rows],
        )


@dataclass(frozen=True)
class ErrorPairs:
    """Pairs of estimates.

    Args:
        distance: of the two problems, float64 [pairs].
        share: how far the two log errors lie apart, over the width of two independent ones, float64 [pairs].
        independent: that width: the root of the sum of the squares of both half-widths, float64 [pairs].
    """

    distance: F64
    share: F64
    independent: F64

    def __len__(self) -> int:
        return len(self.share)

    @classmethod
    def joined(cls, some: Sequence["ErrorPairs"]) -> "ErrorPairs":
        """One after the other."""
        columns = ("distance", "share", "independent")
        return cls(*(np.concatenate([getattr(one, name) for one in some]) for name in columns))

    def held(self, law: RatioLaw) -> float:
        """Share of the pairs whose measured ratio the law's interval holds."""
        return float(np.mean(self.share <= law.factors(self.distance)))


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


def error_pairs(estimates: Estimates, seed: int = 0) -> ErrorPairs:
    """Pairs of rows of one workload and of different shapes; of many rows as many as 40 drawn by chance make."""
    rng = np.random.default_rng(seed)
    order = np.argsort(estimates.workload, kind="stable")
    first: list[npt.NDArray[np.int64]] = [np.zeros(0, dtype=np.int64)]
    second = first.copy()
    for here in np.split(order, np.flatnonzero(np.diff(estimates.workload[order])) + 1):
        some = rng.choice(here, _AT_MOST, replace=False) if len(here) > _AT_MOST else here
        a, b = (some[index] for index in np.triu_indices(len(some), 1))
        other = estimates.shape_key[a] != estimates.shape_key[b]
        first.append(a[other])
        second.append(b[other])
    a, b = np.concatenate(first), np.concatenate(second)
    independent = np.hypot(estimates.log_width[a], estimates.log_width[b])
    return ErrorPairs(
        distance=np.linalg.norm(estimates.log_sizes[a] - estimates.log_sizes[b], axis=1),
        share=np.abs(estimates.log_error[a] - estimates.log_error[b]) / independent,
        independent=independent,
    )


def law_of_sets(sets: Sequence[Estimates], source: str, tiles: F64 | None = None) -> RatioLaw:
    """:func:`fit_law` of the pairs of some sets."""
    return fit_law([error_pairs(one) for one in sets], source, tiles)


def fit_law(sets: Sequence[ErrorPairs], source: str, tiles: F64 | None = None) -> RatioLaw:
    """The law that holds 90 % of the pairs at every distance, each set of pairs weighing the same.

    It is the quantile regression (least pinball loss) among laws that rise with distance.

    Args:
        sets: pairs of each set.
        source: what is said of them in the file.
        tiles: shares, as in :class:`ErrorPairs`, of pairs of tiles of one problem; None takes ``far``.

    Raises:
        UserError: there is no pair.
    """
    sets = [one for one in sets if len(one)]
    if not sets:
        raise UserError("no two measured shapes are of one workload", fix="give measured times of more shapes")
    pairs = ErrorPairs.joined(sets)
    weight = np.concatenate([np.full(len(one), 1.0 / len(one)) for one in sets])
    best = (np.inf, 0.0, 0.0, 0.0)
    near_far = np.stack([one.ravel() for one in np.meshgrid(_NEAR, _FAR, indexing="ij")])
    rising = near_far[:, near_far[0] <= near_far[1]]
    for scale in _SCALES:
        loss = _losses(-np.expm1(-pairs.distance / scale), pairs.share, weight, *rising)
        place = int(loss.argmin())
        best = min(best, (float(loss[place]), float(rising[0, place]), float(rising[1, place]), scale))
    _, near, far, scale = best
    least = far if tiles is None or not len(tiles) else float(np.quantile(tiles, COVERAGE))
    return RatioLaw(near=near, far=far, scale=scale, tiles=least, pairs=len(pairs), source=source)


def _losses(depth: F64, share: F64, weight: F64, near: F64, far: F64) -> F64:
    """Pinball loss of each near and far; depth says how far from one to the other a pair is, in narrow bands."""
    bands = np.minimum((depth * _BINS).astype(int), _BINS - 1)
    total = np.zeros(len(near))
    for band in np.unique(bands):
        inside = bands == band
        order = np.argsort(share[inside])
        values, weights = share[inside][order], weight[inside][order]
        weights_to = np.concatenate([[0.0], np.cumsum(weights)])
        sums_to = np.concatenate([[0.0], np.cumsum(weights * values)])
        factor = near + (far - near) * float(np.average(depth[inside], weights=weight[inside]))
        place = np.searchsorted(values, factor)
        over = sums_to[-1] - sums_to[place] - factor * (weights_to[-1] - weights_to[place])
        under = factor * weights_to[place] - sums_to[place]
        total += COVERAGE * over + (1 - COVERAGE) * under
    return total
