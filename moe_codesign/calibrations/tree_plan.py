"""How sums of symmetric trees are evaluated: each question asked once, and two trees answered by one look.

Where some inputs are fixed, as those of a tile that many problems are asked about, their questions are asked once.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from moe_codesign.arrays import F64

DEEPEST = 6
"""Levels of a tree, so that the leaves of two together, a number for each pair, fit into a core's first cache."""
_BLOCK = 1024
"""Rows at a time: the answers to all questions about them stay in a core's cache."""
_TOGETHER = 16
"""Pairs of trees whose leaves are numbered together, so that 16 bits number them, and half of a core's second cache
holds them."""
_SMALL = 16
"""NumPy copies operands of short rows into a buffer first, so as to have long rows, unless the buffer is short itself.
Each row is then compared as it lies, in a quarter of the time."""
_MOST_BASES = 32
"""Tables of tiles whose part of the answers is kept."""
Memory = list[tuple[int, npt.NDArray[Any]]]
"""Numbers of a row, and the array of a block's."""


@dataclass(frozen=True, eq=False)
class TreePlan:
    """Trees as they are evaluated, some of their inputs fixed.

    A leaf's number has the answers to what varies in its low bits, and those to what is fixed in its high bits.

    Args:
        questions: how many different (feature, border) about inputs that vary all trees ask. by_feature: those of each
            feature, their place and borders [questions, 1].
        asked: by level, the highest first, the questions of the trees that have so many levels about inputs that vary:
            each is of the first trees of ``order``.
        first, second: int [pairs], places in that order of each pair's trees.
        leaves: float32 [pairs, 4**depth], the first one's answers in the high bits. first_leaf: uint16 [pairs, 1],
            where each pair's begin among those of its :data:`_TOGETHER`. depth: of a tree.
        fixed: inputs that are fixed. asked_once: by level, the lowest first, which trees ask there for one of them,
            which, by its place among them, and the border.
    """

    questions: int
    by_feature: list[tuple[int, slice, npt.NDArray[np.float32]]]
    asked: list[npt.NDArray[np.int64]]
    first: npt.NDArray[np.int64]
    second: npt.NDArray[np.int64]
    leaves: npt.NDArray[np.float32]
    first_leaf: npt.NDArray[np.uint16]
    depth: int
    fixed: tuple[int, ...]
    asked_once: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]]
    bases: dict[bytes, npt.NDArray[np.uint16]] = dataclasses.field(default_factory=dict)
    """What :meth:`_base` returned, by the inputs that it was asked about."""
    spare: list[Memory] = dataclasses.field(default_factory=list)
    """What calls worked in, for the next: memory that is asked for anew comes page by page from the system, in which
    threads wait for each other."""

    @classmethod
    def of(
        cls,
        features: npt.NDArray[np.int64],
        borders: npt.NDArray[np.float32],
        leaves: npt.NDArray[np.float32],
        fixed: tuple[int, ...],
    ) -> "TreePlan":
        """The plan of the trees of :class:`moe_codesign.calibrations.trees.SymmetricTrees`, these inputs fixed.

        Args:
            features, borders, leaves: the trees.
            fixed: in ascending order.
        """
        trees, depth = features.shape
        # An even number: the last may stand beside one that is nothing.
        features, borders, leaves = (
            np.concatenate([of, np.zeros((trees % 2, *of.shape[1:]), of.dtype)]) for of in (features, borders, leaves)
        )
        # Levels about what varies come first.
        is_fixed = np.isin(features, fixed)
        places = is_fixed.argsort(axis=1, kind="stable")
        number = np.arange(2**depth)
        old = sum(
            (((number >> level & 1) << places[:, level, None]) for level in range(depth)), np.zeros((1, 1), np.int64)
        )
        features, borders = np.take_along_axis(features, places, 1), np.take_along_axis(borders, places, 1)
        is_fixed, leaves = np.take_along_axis(is_fixed, places, 1), np.take_along_axis(leaves, old, 1)

        by_feature, question, count = [], np.zeros_like(features), 0
        for feature in np.unique(features[~is_fixed]).tolist():
            levels = (features == feature) & ~is_fixed
            different, which = np.unique(borders[levels], return_inverse=True)
            question[levels] = count + which
            by_feature.append((feature, slice(count, count + len(different)), different[:, None]))
            count += len(different)
        levels = (~is_fixed).sum(axis=1)
        order = (-levels).argsort(kind="stable")
        asked = [question[order[: (levels > level).sum()], level] for level in reversed(range(depth))]
        first, second = np.split(order.argsort(), 2)
        of_first, of_second = np.split(leaves, 2)
        pairs = (of_first[:, :, None] + of_second[:, None, :]).reshape(len(of_first), 4**depth)
        of_level = [(np.flatnonzero(is_fixed[:, level]), level) for level in range(depth)]
        return cls(
            questions=count,
            by_feature=by_feature,
            asked=asked,
            first=first,
            second=second,
            leaves=pairs,
            first_leaf=(np.arange(len(pairs), dtype=np.uint16) % _TOGETHER << 2 * depth)[:, None],
            depth=depth,
            fixed=fixed,
            asked_once=[
                (some, np.searchsorted(fixed, features[some, level]), borders[some, level]) for some, level in of_level
            ],
        )

    def sums(self, inputs: npt.NDArray[np.float32]) -> F64:
        """The sums of leaves [problems, tiles]; to the last bits the same whatever stands beside.

        Args:
            inputs: [features, problems, tiles]. Those that are fixed are the same for every problem.
        """
        _, problems, tiles = inputs.shape
        found = np.empty((problems, tiles))
        if not found.size:
            return found
        base = self._base(inputs[list(self.fixed), 0])
        most = max(_BLOCK // tiles, 1)
        blocks = -(-problems // most)
        step = -(-problems // blocks)
        memory = self._memory(step * tiles)
        for start in range(0, problems, step):
            part = inputs[:, start : start + step]
            self._block(part.reshape(len(part), -1), base, memory, found[start : start + step].reshape(-1))
        self.spare.append(memory)
        return found

    def _block(
        self,
        columns: npt.NDArray[np.float32],
        base: npt.NDArray[np.uint16],
        memory: Memory,
        found: F64,
    ) -> None:
        """Write the sums for columns [features, rows], whole problems, into ``found`` [rows]."""
        width = columns.shape[1]
        yes, leaf, answer, of_pair, place, value = (
            array[: count * width].reshape(count, width) for count, array in memory
        )
        bit, pairs = yes.view(np.uint8), len(of_pair)
        with np.errstate():  # which restores the size too
            np.setbufsize(_SMALL)
            for feature, places, borders in self.by_feature:
                np.greater(columns[feature], borders, out=yes[places])
        leaf[:] = 0
        for of_level in self.asked:
            if some := len(of_level):
                # NumPy adds many numbers at a time, and shifts one. Nothing is clipped: without a word on that `take`
                # would copy what it writes.
                leaf[:some] += leaf[:some]
                leaf[:some] |= bit.take(of_level, axis=0, out=answer[:some], mode="clip")
        first = leaf.take(self.first, axis=0, out=answer[:pairs], mode="clip")
        np.multiply(first, 1 << self.depth, out=of_pair, dtype=np.uint16)
        of_pair |= leaf.take(self.second, axis=0, out=answer[pairs:], mode="clip")
        tiles = base.shape[1]
        by_tile = of_pair.reshape(pairs, width // tiles, tiles)
        by_tile |= base[:, None]
        for pair in range(0, pairs, _TOGETHER):
            end = min(pair + _TOGETHER, pairs)
            np.copyto(place[: end - pair], of_pair[pair:end])
            self.leaves[pair:end].take(place[: end - pair], out=value[pair:end], mode="clip")
        value.sum(axis=0, out=found)

    def _base(self, columns: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
        """uint16 [pairs, tiles], what the inputs that are fixed [fixed, tiles] add to a pair's leaf."""
        key = columns.tobytes()
        if (known := self.bases.get(key)) is not None:
            return known
        leaf = np.zeros((2 * len(self.leaves), columns.shape[1]), dtype=np.uint16)
        for level, (trees, places, borders) in enumerate(self.asked_once):
            leaf[trees] |= (columns[places] > borders[:, None]).astype(np.uint16) << np.uint16(level)
        first, second = np.split(leaf, 2)
        base = self.first_leaf | first << np.uint16(self.depth) | second
        if len(self.bases) >= _MOST_BASES:
            self.bases.clear()
        self.bases[key] = base
        return base

    def _memory(self, rows: int) -> Memory:
        """For a block: the questions' answers; leaves and an answer of each tree; leaf, its place, value of each
        pair."""
        for _ in range(len(self.spare)):
            try:
                memory = self.spare.pop()
            except IndexError:  # another thread has it
                break
            if all(len(array) >= count * rows for count, array in memory):
                return memory
        pairs = len(self.leaves)
        kinds: tuple[tuple[int, type[np.generic]], ...] = (
            *((self.questions, np.bool_), (2 * pairs, np.uint8), (2 * pairs, np.uint8)),
            *((pairs, np.uint16), (_TOGETHER, np.intp), (pairs, np.float32)),
        )
        return [(count, np.empty(count * max(rows, _BLOCK), dtype=kind)) for count, kind in kinds]
