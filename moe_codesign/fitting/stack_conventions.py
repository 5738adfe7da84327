"""Find in measured times how they were taken, and fit the physics to that.

What there is to find: :mod:`moe_codesign.cost.stacks.conventions`.

The physics is first fitted where no convention matters: ranks that have all experts, at the rule's tile. What then is
off by far, and is right under the other convention, was timed under it; with that known it is fitted again.
"""

import dataclasses

import numpy as np
import numpy.typing as npt

from moe_codesign.arrays import F64, Mask
from moe_codesign.calibrations.stacks import StackCoefficients
from moe_codesign.cost.stacks import physics as fused_moe
from moe_codesign.cost.stacks.columns import Columns, with_others_on_first
from moe_codesign.cost.stacks.conventions import MOST, Conventions, fastest_usual, named, timed_terms, timed_tiles
from moe_codesign.cost.stacks.physics import Terms
from moe_codesign.cost.stacks.tiles import rule_tiles
from moe_codesign.domain.dtype import DTYPE_BYTES
from moe_codesign.fitting.measured import Measured
from moe_codesign.stacks.tiles import StackTiles

_ROWS_OF_PHYSICS = 1500
_PRIOR = 0.03
"""Pull of each coefficient's logarithm to its start, in units of a row's log error."""
_TRIES, _SPREAD = 8, 0.7
"""Places to begin a fit at and how far apart their logarithms lie. Chosen: of 12, 5 found the best of five minima."""
_ROUNDS = 3
"""How often conventions are looked for and the physics is fitted again. Chosen."""
_FEWEST = 20
"""Rows of a shape or a pair below which nothing is read from them. Chosen, as are the next two lines' numbers."""
_ALL_CHOICES = (0.7, 0.04)
_TUNED = (0.5, 0.1)
"""What the other convention must leave of a mean log error, and take off it. A physics that is off by some other thing
(2816-704 on a GB200: 0.58 to 0.37) is so not taken for a tuned file (0.37 to 0.09 and better on the H100)."""


def fit_coefficients(
    data: Measured,
    conventions: Conventions,
    chooser: StackCoefficients,
    start: StackCoefficients | None = None,
    tries: int = _TRIES,
) -> StackCoefficients:
    """Coefficients with the least soft-L1 error of the logarithm, over a sample even in shapes and tokens.

    Args:
        data: measured rows.
        conventions: how they were timed.
        chooser: coefficients by which unpublished tuned tiles are chosen.
        start: where to begin and what to stay near, such as a similar chip's.
        tries: places at random to begin at, beside the start's and the chooser's.
    """
    sample = even_sample(data)
    _, t = timed_terms(chooser, conventions, sample.columns, sample.chip, sample.stack, sample.dtype)
    return fit_to_terms(t, sample.latency_us, chooser, start, tries)


def fit_to_terms(
    t: Terms, latency_us: F64, chooser: StackCoefficients, start: StackCoefficients | None = None, tries: int = _TRIES
) -> StackCoefficients:
    """Coefficients that bring the times of these terms nearest to the measured ones.

    The error has several minima (which side of a GEMM hides the other), so the search begins at several places: see
    :func:`fit_coefficients` for the arguments.
    """
    from scipy.optimize import least_squares

    begin = (start or StackCoefficients()).logs()
    target = np.log(latency_us)

    def residuals(logs: F64) -> F64:
        times = fused_moe.total_us(StackCoefficients.from_logs(logs), t)
        return np.concatenate([np.log(times) - target, _PRIOR * (logs - begin)])

    # No coefficient goes further than a factor of 150 from where it began: beyond, a term is off or alone.
    low, high = begin - 5, begin + 5
    places = np.stack(
        [begin, chooser.logs(), *(begin + np.random.default_rng(0).normal(0, _SPREAD, (tries, len(begin))))]
    )
    found = [
        least_squares(residuals, place, bounds=(low, high), loss="soft_l1", f_scale=0.1, max_nfev=100)
        for place in np.clip(places, low + 0.1, high - 0.1)
    ]
    return StackCoefficients.from_logs(min(found, key=lambda one: float(one.cost)).x)


def fit_physics(
    data: Measured, start: StackCoefficients | None = None, tries: int = _TRIES
) -> tuple[StackCoefficients, Conventions]:
    """Coefficients and the conventions that the rows were timed under.

    Args:
        data: measured rows.
        start: where to begin and what to stay near, such as a similar chip's.
        tries: places at random to begin at too, of each fit.
    """
    found = Conventions()
    whole = np.flatnonzero(data.columns.local_experts == data.columns.experts)
    begin = start or StackCoefficients()
    x = fit_coefficients(data.take(whole) if len(whole) >= _FEWEST else data, found, begin, start, tries=tries)
    for _ in range(_ROUNDS):
        found = dataclasses.replace(found, all_choices_here=_all_choices(data, x, found))
        found = dataclasses.replace(found, tuned=_tuned(data, x, found))
        x = fit_coefficients(data, found, x, start, tries=tries)
    return x, found


def _all_choices(data: Measured, x: StackCoefficients, found: Conventions) -> dict[str, bool]:
    """For each shape with rows on several ranks, whether they ran all choices. If most did, what disagrees is the
    model's fault."""
    rows = np.flatnonzero(data.columns.local_experts < data.columns.experts)
    some = data.take(rows)
    if not len(some):
        return {}

    def error(work: Columns) -> F64:
        return _log_error(some, x, work, timed_tiles(x, found, work, some.chip, some.stack, some.dtype))

    c = some.columns
    names, place = named(c.hidden, c.experts, c.top_k)
    holds = _better(place, error(c), error(with_others_on_first(c)), _ALL_CHOICES)
    said = {
        name: bool(one) for name, one, rows in zip(names, holds, np.bincount(place), strict=True) if rows >= _FEWEST
    }
    return dict.fromkeys(said, True) if sum(said.values()) >= MOST * len(said) else said


def _tuned(data: Measured, x: StackCoefficients, found: Conventions) -> frozenset[str]:
    """Experts and width with a tuned file, for types of 16 bits, whose files' usual tiles are known."""
    if DTYPE_BYTES[data.dtype] != 2:
        return frozenset()
    work = found.as_timed(data.columns)
    rule = rule_tiles(work, data.stack, data.dtype)
    by_rule = _log_error(data, x, work, rule)
    by_file = _log_error(data, x, work, fastest_usual(x, work, data.chip, data.dtype))
    names, place = named(work.local_experts, work.width)
    holds = _better(place, by_rule, by_file, _TUNED)
    return frozenset(name for name, one in zip(names, holds, strict=True) if one)


def _log_error(data: Measured, x: StackCoefficients, work: Columns, tiles: StackTiles) -> F64:
    times = fused_moe.total_us(x, fused_moe.terms(work, data.chip, data.dtype, tiles))
    return np.asarray(np.abs(np.log(times / data.latency_us)))


def _better(place: npt.NDArray[np.int64], one: F64, other: F64, limits: tuple[float, float]) -> Mask:
    """Groups of rows in which the other's mean error is below that share of the one's, and by so much."""
    rows = np.bincount(place)
    before, after = (np.bincount(place, errors) / rows for errors in (one, other))
    return (after < limits[0] * before) & (before - after > limits[1]) & (rows >= _FEWEST)


def even_sample(data: Measured) -> Measured:
    """Rows to fit the physics to: all of them, or as many of each shape and number of tokens as of any other."""
    if len(data) <= _ROWS_OF_PHYSICS:
        return data.take(np.arange(len(data)))
    cell = np.unique(
        np.stack([np.unique(data.shape_key, return_inverse=True)[1], data.columns.num_tokens]), axis=1,
        return_inverse=True,
    )[1].ravel()  # fmt: skip
    weight = 1.0 / np.bincount(cell)[cell]
    chosen = np.random.default_rng(0).choice(len(data), _ROWS_OF_PHYSICS, replace=False, p=weight / weight.sum())
    return data.take(chosen)
