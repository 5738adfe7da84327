"""Tuned tiles in place of the default rule."""

import numpy as np

from moe_codesign.arrays import F64
from moe_codesign.formats.tuned_files import Tuned
from moe_codesign.stacks.tiles import StackTiles


def with_tuned(tiles: StackTiles, tuned: Tuned, num_tokens: F64, local_experts: F64, width: F64) -> StackTiles:
    """The tuned tile of the nearest number of tokens in each row that has a file, the given one elsewhere."""
    for (experts, one_width), by_tokens in tuned.items():
        rows = np.flatnonzero((local_experts == experts) & (width == one_width))
        if len(rows) and by_tokens:
            known = np.array(sorted(by_tokens))
            nearest = known[np.abs(known[None, :] - num_tokens[rows, None]).argmin(axis=1)]
            tiles = tiles.replaced(rows, StackTiles(*np.array([by_tokens[m] for m in nearest]).T))
    return tiles
