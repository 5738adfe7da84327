"""Fit a calibration: physics first, then trees on what it leaves, then intervals from shapes that neither has seen."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from moe_codesign.arrays import F64
from moe_codesign.calibrations.stacks import Accuracy, StackCoefficients, StackFile
from moe_codesign.cost.stacks import physics as fused_moe
from moe_codesign.cost.stacks.conventions import Conventions, timed_terms
from moe_codesign.cost.stacks.features import features
from moe_codesign.cost.stacks.model import Calibration
from moe_codesign.cost.stacks.physics import bound_us
from moe_codesign.errors import UserError
from moe_codesign.extras import require
from moe_codesign.fitting.few_rows import AS_GOOD, SHARES, rescaled, with_conventions_of
from moe_codesign.fitting.intervals import conformal_interval, errors
from moe_codesign.fitting.measured import Measured
from moe_codesign.fitting.ranges import range_columns, within_range
from moe_codesign.fitting.splits import folds, in_test_split
from moe_codesign.fitting.stack_conventions import fit_physics
from moe_codesign.fitting.trees import learn_by_shape

FEW_ROWS = 300
"""Below so many rows a similar chip's coefficients are scaled and nothing is learned. Chosen, as are the next two."""


def calibrate(
    data: Measured,
    start: Calibration | None = None,
    *,
    test: Measured | None = None,
    known: Mapping[str, bool] | None = None,
    physics: tuple[StackCoefficients, Conventions] | None = None,
) -> Calibration:
    """Fit coefficients, correction and intervals.

    Args:
        data: rows to fit.
        start: of a similar chip. Where rows are few its coefficients are scaled, no more, and its trees are kept.
        test: rows of held-out shapes to judge it on, whose accuracy goes into the file.
        known: of shapes that other chips were timed with in the same way, whether ranks ran all choices.
        physics: of these rows by :func:`fit_physics`, if at hand.
    """
    start = with_conventions_of(data, start)
    known = known or (start.file.all_choices_here if start is not None else {})
    if few := len(data) < FEW_ROWS or data.shapes < 3:
        if start is None:
            raise UserError(
                f"{len(data)} rows of {data.shapes} shapes are too few without a similar chip's calibration",
                fix=f"give {FEW_ROWS} rows of 3 shapes or more",
            )
        x, share, trees, off = rescaled(data, start)
        conventions = Conventions()
        interval = conformal_interval(off, data.columns.num_tokens)
    else:
        require("catboost", "a fit")
        x, conventions = physics or fit_physics(data, start.coefficients if start is not None else None)
        work, t = timed_terms(x, conventions, data.columns, data.chip, data.stack, data.dtype)
        times = fused_moe.total_us(x, t)
        residual = np.log(data.latency_us / times)
        inputs = features(work, t, times)
        share, off = _out_of_fold(data, inputs, residual)
        trees = learn_by_shape(inputs, residual, data.shape_key)
        within = within_range(data)
        interval = conformal_interval(off[within], data.columns.num_tokens[within])
    fitted_range = {name: (float(v.min()), float(v.max())) for name, v in range_columns(data).items()}
    if few and start is not None:
        # Few rows move the middle; how far another shape may lie from it they cannot say.
        wider = zip(interval, start.file.interval, strict=True)
        interval = tuple(max(own, donors) for own, donors in wider)  # type: ignore[assignment]
        for name, (low, high) in start.file.fitted_range.items():
            own = fitted_range.get(name, (low, high))
            fitted_range[name] = (min(low, own[0]), max(high, own[1]))
    file = StackFile(
        chip=data.chip.name,
        stack=data.stack,
        dtype=data.dtype,
        source=data.source,
        version=data.version,
        rows=len(data),
        shapes=data.shapes,
        unnamed_routing=int(data.unnamed_routing.sum()),
        left_out=data.left_out,
        correction_share=share,
        coefficients=dataclasses.asdict(x),
        interval=interval,
        fitted_range=fitted_range,
        tuned=tuple(sorted(conventions.tuned)),
        all_choices_here={**known, **conventions.all_choices_here},
    )
    found = Calibration(file, trees if share > 0 else None)
    if test is not None and len(test):
        found = Calibration(file.model_copy(update={"held_out": judge(found, test)}), found.trees)
    return found


def _out_of_fold(data: Measured, x: F64, residual: F64) -> tuple[float, F64]:
    """Share of the correction that helps on held-out shapes, and the log errors there.

    The largest that is about as good as the best: what is kept has seen all shapes, the trees of a fold fewer, and of
    five shapes one is many.
    """
    learned = _learned_elsewhere(data, x, residual)
    found = [np.abs(np.exp(share * learned - residual) - 1) for share in SHARES]
    error = [float(one.mean() + np.median(one)) for one in found]
    share = max(share for share, one in zip(SHARES, error, strict=True) if one <= AS_GOOD * min(error))
    return share, residual - share * learned


def _learned_elsewhere(data: Measured, x: F64, residual: F64) -> F64:
    """Correction of every row by trees that have not seen its shape. The physics is fitted once on all shapes.

    It has 20 numbers for thousands of rows, and says of each shape how it was timed.
    """
    learned = np.zeros(len(data))
    for fitted, held in folds(data.shape_key):
        learned[held] = learn_by_shape(x[fitted], residual[fitted], data.shape_key[fitted]).predict(x[held])
    return learned


def out_of_fold_us(calibration: Calibration, data: Measured) -> F64:
    """Times of rows that were fitted, each with trees that have not seen its shape."""
    physics, work, t = calibration.physics_us(data.chip, data.columns)
    learned = _learned_elsewhere(data, features(work, t, physics), np.log(data.latency_us / physics))
    times = physics * np.exp(calibration.file.correction_share * learned)
    return np.asarray(np.maximum(times, bound_us(data.columns, data.chip, data.dtype)))


def judge(calibration: Calibration, data: Measured) -> Accuracy:
    """Error of the calibration on these rows, with and without the correction."""
    predicted = calibration.predict(data.chip, data.columns)
    physics, _, _ = calibration.physics_us(data.chip, data.columns)
    whole = errors(predicted.latency_us, data.latency_us)
    plain = errors(np.maximum(physics, predicted.bound_us), data.latency_us)
    inside = (predicted.low_us <= data.latency_us) & (data.latency_us <= predicted.high_us)
    return Accuracy(
        mape=whole[0],
        median=whole[1],
        p90=whole[2],
        physics_mape=plain[0],
        physics_median=plain[1],
        interval_coverage=100 * float(inside.mean()),
        rows=len(data),
        shapes=data.shapes,
    )


def calibrate_split(data: Measured, start: Calibration | None = None, *, then_all: bool = False) -> Calibration:
    """Calibrate on the shapes outside of the test split and judge on those in it, if both sides have some.

    ``then_all``: what is returned is fitted to all rows, with the judgement of the one that was not.
    """
    held = in_test_split(data.shape_key)
    if (~held).sum() < FEW_ROWS or len(np.unique(data.shape_key[~held])) < 3 or not held.any():
        return calibrate(data, start)
    judged = calibrate(data.take(np.flatnonzero(~held)), start, test=data.take(np.flatnonzero(held)))
    if not then_all:
        return judged
    whole = calibrate(data, start)
    return Calibration(whole.file.model_copy(update={"held_out": judged.file.held_out}), whole.trees)
