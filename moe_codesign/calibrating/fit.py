"""Fit a calibration: physics first, then trees on what it leaves, then intervals from shapes that neither has seen."""

import dataclasses
import hashlib
import importlib.util
import json
import math
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from moe_codesign.calibrating.conventions import fit_physics
from moe_codesign.calibrating.measured import Measured
from moe_codesign.cost import fused_moe
from moe_codesign.cost.calibration import TOKEN_BUCKETS, Accuracy, Calibration, CalibrationFile, features
from moe_codesign.cost.conventions import Conventions, timed_terms
from moe_codesign.cost.fused_moe import Coefficients, bound_us
from moe_codesign.cost.table import F64
from moe_codesign.cost.trees import DEEPEST, SymmetricTrees
from moe_codesign.errors import UserError

Mask = npt.NDArray[np.bool_]
FEW_ROWS = 300
"""Below so many rows a similar chip's coefficients are scaled and nothing is learned. Chosen, as are the next two."""
_FOLDS = 10
_COVERAGE = 0.9
_TREES: dict[str, Any] = {
    # Absolute error: what is wrong with a few rows (an unknown tuned tile) is not spread over the others.
    "loss_function": "MAE",
    "iterations": 300,
    "depth": DEEPEST,
    "learning_rate": 0.1,
    "random_seed": 0,
    # No threads that spin beside other busy processes, and sums in one order.
    "thread_count": 1,
    "allow_writing_files": False,
    "logging_level": "Silent",
}
_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
_AS_GOOD, _CLEARLY = 1.05, 0.7
"""Of an error, what is as good as it, and what is clearly better. Chosen."""


def in_test_split(shape_key: npt.NDArray[np.str_]) -> Mask:
    """Rows whose shape (hidden-inter-experts-topk) is in no fit of a shipped coefficient: one shape in five."""
    keys, place = np.unique(shape_key, return_inverse=True)
    chosen = [int(hashlib.sha256(str(key).encode()).hexdigest(), 16) % 5 == 3 for key in keys]
    return np.array(chosen, dtype=bool)[place]


def errors(predicted: F64, measured: F64) -> tuple[float, float, float]:
    """Absolute relative error in percent: mean, median, 90th percentile."""
    found = 100 * np.abs(predicted / measured - 1)
    return float(found.mean()), float(np.median(found)), float(np.percentile(found, 90))


def learn(x: F64, residual: F64, weight: F64) -> SymmetricTrees:
    """Trees on [rows, inputs] that predict a logarithm's residual; rows by weight."""
    import catboost

    model = catboost.CatBoostRegressor(**_TREES)
    model.fit(x, residual, sample_weight=weight / weight.mean())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.json"
        model.save_model(str(path), format="json")
        return _as_arrays(json.loads(path.read_text()))


def _learn(x: F64, residual: F64, shape_key: npt.NDArray[np.str_]) -> SymmetricTrees:
    place = np.unique(shape_key, return_inverse=True)[1]
    return learn(x, residual, 1.0 / np.sqrt(np.bincount(place)[place]))


def _as_arrays(model: dict[str, Any]) -> SymmetricTrees:
    """CatBoost's JSON as arrays. It numbers a leaf by its answers as bits, the first split lowest."""
    trees, depth = model["oblivious_trees"], int(_TREES["depth"])
    names = [one["flat_feature_index"] for one in model["features_info"]["float_features"]]
    features = np.zeros((len(trees), depth), dtype=np.int64)
    borders = np.full((len(trees), depth), np.inf, dtype=np.float32)
    leaves = np.zeros((len(trees), 2**depth), dtype=np.float32)
    for i, tree in enumerate(trees):
        splits = tree["splits"] or []
        for level, split in enumerate(splits):
            features[i, level], borders[i, level] = names[split["float_feature_index"]], split["border"]
        leaves[i, : 2 ** len(splits)] = tree["leaf_values"]
    scale, (bias,) = model["scale_and_bias"]
    return SymmetricTrees(features, borders, np.float32(scale) * leaves, np.array([bias], dtype=np.float32))


def _folds(shape_key: npt.NDArray[np.str_]) -> Iterator[tuple[Mask, Mask]]:
    """(fitted, held out) rows, shapes never on both sides."""
    keys, place = np.unique(shape_key, return_inverse=True)
    fold = np.random.default_rng(0).permutation(len(keys)) % min(_FOLDS, len(keys))
    for number in range(fold.max() + 1):
        held = fold[place] == number
        yield ~held, held


def calibrate(
    data: Measured,
    start: Calibration | None = None,
    *,
    test: Measured | None = None,
    known: Mapping[str, bool] | None = None,
    physics: tuple[Coefficients, Conventions] | None = None,
) -> Calibration:
    """Fit coefficients, correction and intervals.

    Args:
        data: rows to fit.
        start: of a similar chip. Where rows are few its coefficients are scaled, no more, and its trees are kept.
        test: rows of held-out shapes to judge it on, whose accuracy goes into the file.
        known: of shapes that other chips were timed with in the same way, whether ranks ran all choices.
        physics: of these rows by :func:`fit_physics`, if at hand.
    """
    start = _with_conventions_of(data, start)
    known = known or (start.file.all_choices_here if start is not None else {})
    if few := len(data) < FEW_ROWS or data.shapes < 3:
        if start is None:
            raise UserError(
                f"{len(data)} rows of {data.shapes} shapes are too few without a similar chip's calibration",
                mend=f"give {FEW_ROWS} rows of 3 shapes or more",
            )
        x, share, trees, off = _rescaled(data, start)
        conventions = Conventions()
        interval = conformal_interval(off, data.columns.num_tokens)
    else:
        if importlib.util.find_spec("catboost") is None:
            raise UserError("catboost is not installed", mend='pip install "moe-codesign[calibrate]"')
        x, conventions = physics or fit_physics(data, start.coefficients if start is not None else None)
        work, t = timed_terms(x, conventions, data.columns, data.chip, data.stack, data.dtype)
        times = fused_moe.total_us(x, t)
        residual = np.log(data.latency_us / times)
        inputs = features(work, t, times)
        share, off = _out_of_fold(data, inputs, residual)
        trees = _learn(inputs, residual, data.shape_key)
        within = within_range(data)
        interval = conformal_interval(off[within], data.columns.num_tokens[within])
    fitted_range = {name: (float(v.min()), float(v.max())) for name, v in _range_columns(data).items()}
    if few and start is not None:
        # Few rows move the middle; how far another shape may lie from it they cannot say.
        wider = zip(interval, start.file.interval, strict=True)
        interval = tuple(max(own, donors) for own, donors in wider)  # type: ignore[assignment]
        for name, (low, high) in start.file.fitted_range.items():
            own = fitted_range.get(name, (low, high))
            fitted_range[name] = (min(low, own[0]), max(high, own[1]))
    file = CalibrationFile(
        chip=data.chip.name,
        stack=data.stack,
        dtype=data.dtype,
        source=data.source,
        version=data.version,
        rows=len(data),
        shapes=data.shapes,
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


def _with_conventions_of(data: Measured, start: Calibration | None) -> Calibration | None:
    """The donor without the shapes whose ranks ran all choices, if the rows that this touches are clearly nearer so,
    once both are as far off in the middle as on the rows that it does not touch."""
    if start is None or not (touched := start.conventions.runs_all_choices(data.columns)).any():
        return start
    other = dataclasses.replace(start, file=start.file.model_copy(update={"all_choices_here": {}}))

    def error(one: Calibration) -> float:
        off = np.log(dataclasses.replace(one, transferred_from=one.file.chip).physics_us(data.chip, data.columns)[0])
        off = off - np.log(data.latency_us)
        middle = 0.0 if touched.all() else float(np.median(off[~touched]))
        return float(np.abs(off[touched] - middle).mean())

    return other if error(other) < _CLEARLY * error(start) else start


_GROUPS = {
    "compute": ("matrix", "step_us", "latency_us", "near_us", "block_us"),
    "memory": ("memory", "l2", "elementwise", "zeros"),
    "fixed": ("align_ns", "launch_us", "expert_ns", "empty_ns", "zero_block_ns"),
}
"""Coefficients that few rows can tell apart only as groups."""
_GROUP_SPREAD = 0.15
"""How far a group's logarithm lies from a similar chip's, and an error from the donor's, before any row is seen.
Chosen: about what results/accuracy/README.md shows between chips of one architecture."""


def _rescaled(data: Measured, start: Calibration) -> tuple[Coefficients, float, SymmetricTrees | None, F64]:
    """A donor's coefficients with one factor for each group, its correction as it is, and the errors left.

    Errors of few rows are widened for their number: nothing is held out.
    """
    from scipy.optimize import least_squares

    physics, work, t = dataclasses.replace(start, transferred_from=start.file.chip).physics_us(data.chip, data.columns)
    share = start.file.correction_share if start.trees is not None else 0.0
    learned = start.correction(work, t, physics)

    def scaled(logs: F64) -> Coefficients:
        factors = np.exp(logs)
        changed = {
            name: getattr(start.coefficients, name) * float(factor)
            for factor, names in zip(factors, _GROUPS.values(), strict=True)
            for name in names
        }
        return dataclasses.replace(start.coefficients, **changed)

    def errors_of(logs: F64) -> F64:
        return np.asarray(np.log(fused_moe.total_us(scaled(logs), t) / data.latency_us) + learned)

    def residuals(logs: F64) -> F64:
        return np.concatenate([errors_of(logs) / _GROUP_SPREAD, logs / _GROUP_SPREAD])

    found = least_squares(residuals, np.zeros(len(_GROUPS)), loss="soft_l1")
    return scaled(found.x), share, start.trees, errors_of(found.x) * _small_sample(len(data))


def _small_sample(rows: int) -> float:
    return 1.0 + 3.0 / math.sqrt(rows)


def _out_of_fold(data: Measured, x: F64, residual: F64) -> tuple[float, F64]:
    """Share of the correction that helps on held-out shapes, and the log errors there.

    The largest that is about as good as the best: what is kept has seen all shapes, the trees of a fold fewer, and of
    five shapes one is many.
    """
    learned = _learned_elsewhere(data, x, residual)
    found = [np.abs(np.exp(share * learned - residual) - 1) for share in _SHARES]
    error = [float(one.mean() + np.median(one)) for one in found]
    share = max(share for share, one in zip(_SHARES, error, strict=True) if one <= _AS_GOOD * min(error))
    return share, residual - share * learned


def _learned_elsewhere(data: Measured, x: F64, residual: F64) -> F64:
    """Correction of every row by trees that have not seen its shape. The physics is fitted once on all shapes.

    It has 20 numbers for thousands of rows, and says of each shape how it was timed.
    """
    learned = np.zeros(len(data))
    for fitted, held in _folds(data.shape_key):
        learned[held] = _learn(x[fitted], residual[fitted], data.shape_key[fitted]).predict(x[held])
    return learned


def out_of_fold_us(calibration: Calibration, data: Measured) -> F64:
    """Times of rows that were fitted, each with trees that have not seen its shape."""
    physics, work, t = calibration.physics_us(data.chip, data.columns)
    learned = _learned_elsewhere(data, features(work, t, physics), np.log(data.latency_us / physics))
    times = physics * np.exp(calibration.file.correction_share * learned)
    return np.asarray(np.maximum(times, bound_us(data.columns, data.chip, data.dtype)))


def in_range(data: Measured, known: Measured) -> Mask:
    """Rows of the first within the range of a fit to the second."""
    within = np.ones(len(data), dtype=bool)
    for name, values in _range_columns(known).items():
        own = getattr(data.columns, name)
        within &= (own >= values.min()) & (own <= values.max())
    return within


def _range_columns(data: Measured) -> dict[str, F64]:
    return {name: getattr(data.columns, name) for name in ("num_tokens", "hidden", "width", "local_experts", "top_k")}


def within_range(data: Measured) -> Mask:
    """Rows within the range of the shapes of the other folds: beyond it a prediction's interval is widened, so that
    errors there say nothing about the interval within. All rows, where nearly none are."""
    within = np.zeros(len(data), dtype=bool)
    for fitted, held in _folds(data.shape_key):
        within |= held & in_range(data, data.take(np.flatnonzero(fitted)))
    return within if within.sum() >= 20 else np.ones(len(data), dtype=bool)


def conformal_interval(log_errors: F64, num_tokens: F64) -> tuple[float, float, float]:
    """Per bucket of tokens the log error that 90 % of held-out rows do not exceed, by the conformal rank."""
    bucket = np.searchsorted(TOKEN_BUCKETS, num_tokens)
    found = []
    for number in range(3):
        inside = np.sort(np.abs(log_errors[bucket == number] if (bucket == number).sum() >= 20 else log_errors))
        rank = min(int(np.ceil((len(inside) + 1) * _COVERAGE)), len(inside)) - 1
        found.append(max(float(inside[rank]), 0.01))
    return found[0], found[1], found[2]


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
