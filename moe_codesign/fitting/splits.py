"""Which shapes are fitted and which are held out."""

import hashlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from moe_codesign.arrays import Mask

_FOLDS = 10


def in_test_split(shape_key: npt.NDArray[np.str_]) -> Mask:
    """Rows whose shape (hidden-inter-experts-topk) is in no fit of a shipped coefficient: one shape in five."""
    keys, place = np.unique(shape_key, return_inverse=True)
    chosen = [int(hashlib.sha256(str(key).encode()).hexdigest(), 16) % 5 == 3 for key in keys]
    return np.array(chosen, dtype=bool)[place]


def folds(shape_key: npt.NDArray[np.str_], most: int = _FOLDS) -> Iterator[tuple[Mask, Mask]]:
    """(fitted, held out) rows, shapes never on both sides."""
    keys, place = np.unique(shape_key, return_inverse=True)
    fold = np.random.default_rng(0).permutation(len(keys)) % min(most, len(keys))
    for number in range(fold.max() + 1):
        held = fold[place] == number
        yield ~held, held
