"""Fit the trees of a learned correction."""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from moe_codesign.arrays import F64
from moe_codesign.calibrations.tree_plan import DEEPEST
from moe_codesign.calibrations.trees import SymmetricTrees

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


def learn(x: F64, residual: F64, weight: F64) -> SymmetricTrees:
    """Trees on [rows, inputs] that predict a logarithm's residual; rows by weight."""
    import catboost

    model = catboost.CatBoostRegressor(**_TREES)
    model.fit(x, residual, sample_weight=weight / weight.mean())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.json"
        model.save_model(str(path), format="json")
        return _as_arrays(json.loads(path.read_text(encoding="utf-8")))


def learn_by_shape(x: F64, residual: F64, shape_key: npt.NDArray[np.str_]) -> SymmetricTrees:
    """Trees on a residual, in which a shape with many rows does not outweigh the others."""
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
