"""Fit what ships of the operations of a chip under a stack: physics by variant, trees on what it leaves, intervals.

Shapes of the test split (one in five, by the hash of their key) are in no fit, and every accuracy is of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moe_codesign.arrays import F64
from moe_codesign.calibrations.operations import FittedOperation, FittedVariant, HeldOut
from moe_codesign.calibrations.trees import SymmetricTrees
from moe_codesign.cost.operations.fitted import inputs
from moe_codesign.cost.operations.operation import Coefficients, Operation, Rates, Sizes
from moe_codesign.fitting.operation_rows import Rows
from moe_codesign.fitting.splits import folds, in_test_split
from moe_codesign.fitting.trees import learn_by_shape

_ROWS_OF_PHYSICS = 1200
_TRIES, _SPREAD = 2, 0.4
"""Places that a fit begins at, and how far apart their logarithms lie."""
_PRIOR = 0.03
"""Pull of each coefficient's logarithm to its start, in units of a row's log error."""
_MOST_ROWS = 15_000
"""Rows of a variant that the trees learn, drawn by chance of all: more move their error by less than a tenth."""
_FOLDS = 4
_FEWEST = 40
"""Rows of a variant below which nothing is fitted."""
_ROUND = 2.0**-11
"""Leaves are whole numbers of this: they lie a twentieth of a percent apart, and the archive is a third as large."""
_COVERAGE = 0.9


@dataclass(frozen=True, eq=False)
class Fit:
    """What was fitted to an operation."""

    fitted: FittedOperation
    trees: SymmetricTrees | None


def fit_operation(operation: Operation, rates: Rates, rows: Mapping[str, Rows]) -> Fit | None:
    """Fit the variants of an operation; None where none has rows enough.

    Args:
        operation: the family.
        rates: of the measured chip.
        rows: measured rows by variant, with their keys.
    """
    variants: dict[str, FittedVariant] = {}
    split: dict[str, tuple[Rows, Rows]] = {}
    for variant in sorted(rows):
        if variant not in operation.variants:
            continue
        mine = _possible(operation, rates, variant, rows[variant])
        test = in_test_split(mine.keys)
        fitted = mine.take(~test)
        if len(fitted) > _MOST_ROWS:
            fitted = fitted.take(np.sort(np.random.default_rng(0).choice(len(fitted), _MOST_ROWS, replace=False)))
        if len(fitted) < _FEWEST:
            continue
        split[variant] = fitted, mine.take(test)
        x = _fit_physics(operation, rates, variant, fitted)
        variants[variant] = FittedVariant(
            code=len(variants),
            version=fitted.version,
            kernel=fitted.kernel,
            rows=len(fitted),
            shapes=len(np.unique(fitted.keys)),
            left_out=dict(mine.left_out),
            coefficients={name: float(f"{value:.6g}") for name, value in zip(x.names(), np.exp(x.logs()), strict=True)},
            interval=1.0,
            fitted_range={name: (float(c.min()), float(c.max())) for name, c in fitted.sizes.items()},
        )
    if not variants:
        return None
    inside = {
        variant: _columns(operation, rates, variant, variants[variant], split[variant][0]) for variant in variants
    }
    x_all = np.concatenate([one[0] for one in inside.values()])
    residual = np.concatenate([one[1] for one in inside.values()])
    keys = np.concatenate([split[variant][0].keys for variant in variants])
    labels = np.concatenate([np.full(len(split[variant][0]), variant) for variant in variants])
    off = residual - _learned_elsewhere(x_all, residual, keys)
    helps = np.abs(off).mean() < np.abs(residual).mean()
    trees = _rounded(learn_by_shape(x_all, residual, keys)) if helps else None
    for variant in variants:
        errors = (off if helps else residual)[labels == variant]
        interval = max(float(np.quantile(np.abs(errors), _COVERAGE, method="higher")), 0.01)
        variants[variant] = variants[variant].model_copy(update={"interval": float(f"{interval:.4g}")})
    held = {
        variant: judged
        for variant in variants
        if (judged := _judge(operation, rates, variant, variants[variant], trees, *split[variant])) is not None
    }
    return Fit(FittedOperation(variants=variants, correction=helps, held_out=held), trees)


def _possible(operation: Operation, rates: Rates, variant: str, rows: Rows) -> Rows:
    """The rows that are not faster than the bound by more than what a warm cache explains."""
    compute = operation.bounds(rates, variant, rows.sizes).compute_us
    good = rows.latency_us >= 0.97 * compute
    kept = rows.take(good)
    if good.all():
        return kept
    left_out = {**rows.left_out, "faster than the matrix units": int((~good).sum())}
    return Rows(kept.sizes, kept.latency_us, kept.keys, kept.version, kept.kernel, left_out)


def _fit_physics(operation: Operation, rates: Rates, variant: str, rows: Rows) -> Coefficients:
    from scipy.optimize import least_squares

    rng = np.random.default_rng(0)
    sample = rows.take(rng.permutation(len(rows))[:_ROWS_OF_PHYSICS])
    target = np.log(sample.latency_us)
    kind = operation.coefficients
    begin = kind().logs()
    low = begin - 5
    for place, name in enumerate(kind.names()):
        if name in kind.least:
            low[place] = max(low[place], np.log(kind.least[name]) - 1e-8)

    def residuals(logs: F64) -> F64:
        with np.errstate(all="ignore"):
            times = operation.physics_us(rates, variant, kind.from_logs(logs), sample.sizes)
            return np.concatenate([np.log(times) - target, _PRIOR * (logs - begin)])

    found = []
    for number in range(_TRIES):
        spread = rng.normal(0, _SPREAD, len(begin)) if number else 0.0
        start = np.clip(begin + spread, low + 1e-6, begin + 5 - 1e-6)
        found.append(least_squares(residuals, start, bounds=(low, begin + 5), loss="soft_l1", f_scale=0.1, max_nfev=25))
    return kind.from_logs(min(found, key=lambda one: float(one.cost)).x)


def _columns(operation: Operation, rates: Rates, variant: str, one: FittedVariant, rows: Rows) -> tuple[F64, F64, F64]:
    """What the trees see of rows, the logarithm of what the physics leaves, and the physics."""
    physics = operation.physics_us(rates, variant, operation.coefficients(**one.coefficients), rows.sizes)
    return inputs(operation, rates, variant, one, rows.sizes, physics), np.log(rows.latency_us / physics), physics


def _learned_elsewhere(x: F64, residual: F64, keys: npt.NDArray[np.str_]) -> F64:
    """Correction of each row by trees that have not seen its shape."""
    learned = np.zeros(len(residual))
    for fitted, held in folds(keys, _FOLDS):
        if fitted.any():
            learned[held] = learn_by_shape(x[fitted], residual[fitted], keys[fitted]).predict(x[held])
    return learned


def _rounded(trees: SymmetricTrees) -> SymmetricTrees:
    leaves = (np.round(trees.leaves / _ROUND) * _ROUND).astype(np.float32)
    return SymmetricTrees(trees.features, trees.borders, leaves, trees.bias)


def _judge(
    operation: Operation,
    rates: Rates,
    variant: str,
    one: FittedVariant,
    trees: SymmetricTrees | None,
    fitted: Rows,
    test: Rows,
) -> HeldOut | None:
    if not len(test):
        return None
    x, _, physics = _columns(operation, rates, variant, one, test)
    bound = operation.bounds(rates, variant, test.sizes).us
    latency = np.maximum(physics * np.exp(trees.predict(x)) if trees is not None else physics, bound)

    def error(times: F64) -> F64:
        return 100 * np.abs(times / test.latency_us - 1)

    whole = error(latency)
    inside = np.abs(np.log(latency / test.latency_us)) <= one.interval
    found = HeldOut(
        mape=float(whole.mean()),
        median=float(np.median(whole)),
        p90=float(np.percentile(whole, 90)),
        physics_mape=float(error(np.maximum(physics, bound)).mean()),
        roofline_mape=float(error(bound).mean()),
        neighbour_mape=float(error(_by_neighbour(operation, rates, variant, fitted, test)).mean()),
        interval_coverage=100 * float(inside.mean()),
        rows=len(test),
        shapes=len(np.unique(test.keys)),
    )
    return HeldOut(**{name: round(value, 3) for name, value in found.model_dump().items()})


def _by_neighbour(operation: Operation, rates: Rates, variant: str, fitted: Rows, test: Rows) -> F64:
    """The time of the nearest fitted problem by the logarithms of its sizes, scaled by the bounds' ratio: what an
    interpolation of measured tables without these shapes knows."""
    from scipy.spatial import KDTree

    names = sorted(fitted.sizes)

    def logs(sizes: Sizes) -> F64:
        return np.stack([np.log1p(sizes[name]) for name in names], axis=1)

    _, nearest = KDTree(logs(fitted.sizes)).query(logs(test.sizes))
    ratio = operation.bounds(rates, variant, test.sizes).us / np.maximum(
        operation.bounds(rates, variant, fitted.take(nearest).sizes).us, 1e-9
    )
    return np.asarray(fitted.latency_us[nearest] * ratio)


def with_keys(operation: Operation, rows: Rows) -> Rows:
    """The rows with the keys of their shapes."""
    return Rows(
        rows.sizes, rows.latency_us, np.array(operation.shape_key(rows.sizes)), rows.version, rows.kernel, rows.left_out
    )
