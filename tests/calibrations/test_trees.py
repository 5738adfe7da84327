"""Sums of symmetric trees, against a walk down each."""

import copy
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_codesign.calibrations.trees import SymmetricTrees


def random_trees(trees: int, depth: int, seed: int) -> SymmetricTrees:
    rng = np.random.default_rng(seed)
    borders = rng.normal(size=(trees, depth)).astype(np.float32)
    borders[rng.random((trees, depth)) < 0.2] = np.inf
    return SymmetricTrees(
        features=rng.integers(0, 4, (trees, depth)),
        borders=borders,
        leaves=rng.normal(size=(trees, 2**depth)).astype(np.float32),
        bias=np.array([0.5], dtype=np.float32),
    )


@settings(deadline=None, max_examples=30)
@given(trees=st.integers(0, 5), depth=st.integers(1, 6), rows=st.sampled_from([0, 1, 7, 1024, 2500]))
def test_sums_are_those_of_a_walk(trees: int, depth: int, rows: int) -> None:
    model = random_trees(trees, depth, rows + depth)
    inputs = np.random.default_rng(rows).normal(size=(rows, 4))
    found = model.predict(inputs)
    assert found.shape == (rows,)
    for i in range(0, rows, 31):
        expected = 0.5
        for features, borders, leaves in zip(model.features, model.borders, model.leaves, strict=True):
            answers = [np.float32(inputs[i, f]) > b for f, b in zip(features, borders, strict=True)]
            expected += leaves[sum(int(yes) << level for level, yes in enumerate(answers))]
        assert found[i] == pytest.approx(expected, abs=1e-5)


@settings(deadline=None, max_examples=30)
@given(
    trees=st.integers(0, 40),
    depth=st.integers(1, 6),
    fixed=st.sets(st.integers(0, 3)),
    sizes=st.sampled_from([(0, 3), (1, 1), (1, 460), (7, 300), (3, 2000)]),
)
def test_what_is_fixed_is_asked_once_and_answers_alike(
    trees: int, depth: int, fixed: set[int], sizes: tuple[int, int]
) -> None:
    model = random_trees(trees, depth, 10 * trees + depth)
    rng = np.random.default_rng(depth)
    for _ in range(2):  # other tiles than those that were asked about before
        inputs = rng.normal(size=(4, *sizes)).astype(np.float32)
        inputs[list(fixed)] = inputs[list(fixed), :1]
        found = model.predict_tiles(inputs, tuple(sorted(fixed)))
        assert found.shape == sizes
        assert (found.ravel() == model.predict(inputs.reshape(4, -1).T)).all()


def test_a_row_is_answered_alike_alone_and_in_a_table() -> None:
    model = random_trees(60, 6, 1)
    inputs = np.random.default_rng(2).normal(size=(1500, 4))
    together = model.predict(inputs)
    assert [float(model.predict(row[None])[0]) for row in inputs] == together.tolist()


def test_threads_do_not_share_what_they_work_in() -> None:
    model = random_trees(61, 6, 3)
    tables = [np.random.default_rng(seed).normal(size=(5000, 4)) for seed in range(8)]
    expected = [model.predict(table) for table in tables]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(model.predict, tables * 4))
    assert all((one == other).all() for one, other in zip(found, expected * 4, strict=True))


def test_a_copy_takes_the_trees_and_no_more() -> None:
    model = random_trees(3, 6, 0)
    inputs = np.random.default_rng(1).normal(size=(50, 4))
    expected = model.predict(inputs)
    twin = copy.deepcopy(model)
    assert "_plans" in vars(model)
    assert "_plans" not in vars(twin)
    assert (twin.predict(inputs) == expected).all()


def test_archives_are_read_back() -> None:
    model = random_trees(3, 6, 0)
    read = SymmetricTrees.from_bytes(model.to_bytes())
    inputs = np.random.default_rng(1).normal(size=(50, 4))
    assert (read.predict(inputs) == model.predict(inputs)).all()
    with pytest.raises((ValueError, zipfile.BadZipFile)):
        SymmetricTrees.from_bytes(b"no archive")


def test_deeper_trees_than_are_read_say_so() -> None:
    with pytest.raises(ValueError, match="7 levels deep, of which 6 are read"):
        SymmetricTrees.from_bytes(random_trees(2, 7, 0).to_bytes())
