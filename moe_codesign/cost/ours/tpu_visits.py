"""How many visits the groups of grouped GEMMs take on a TPU, and of how many rows.

A visit starts where its group starts, on a whole block of eight rows; the rows of earlier groups that share its first
block are its own too. Whatever a visit costs depends on its blocks of eight alone, so groups of as many blocks are
counted instead of listed: a prefill of 256 experts has some 50 different ones.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from moe_codesign.arrays import F64, Mask
from moe_codesign.domain.grouped_gemms import GroupedGemms
from moe_codesign.domain.token_counts import Counts

N = TypeVar("N", bound=np.generic)
_SUBLANES = 8
"""Rows that every copy of rows is rounded to."""
_MOST_BLOCKS = 1 << 40
"""More blocks of eight rows than any group has."""


@dataclass(frozen=True, eq=False)
class Groups:
    """The different groups of grouped GEMMs, those of a GEMM together; at least one of each GEMM, if of count 0.

    Args:
        gemm: int64 [groups], place of the GEMM that each is of.
        starts: int64 [gemms], where the groups of each begin.
        rows: [groups, 1], rows that are copied: whole blocks of eight.
        count: [groups, 1], how many groups are like this one.
        first: [gemms, 1], rows of the GEMM's first group that has any; 0 without one.
    """

    gemm: Counts
    starts: Counts
    rows: F64
    count: F64
    first: F64

    @classmethod
    def of(cls, gemms: GroupedGemms) -> "Groups":
        """Those of the GEMMs, groups without rows left out."""
        ends = np.cumsum(gemms.rows)
        before = ends - gemms.rows
        gemm = np.repeat(np.arange(len(gemms)), gemms.groups)
        before -= before[gemms.starts][gemm]
        some = np.flatnonzero(gemms.rows)
        blocks = -(-(gemms.rows + before % _SUBLANES)[some] // _SUBLANES)
        empty = np.flatnonzero(gemms.active_groups[:, 0] == 0)
        keys = np.concatenate([gemm[some] * _MOST_BLOCKS + blocks, empty * _MOST_BLOCKS])
        keys, count = np.unique(keys, return_counts=True)
        which, blocks = np.divmod(keys, _MOST_BLOCKS)
        first = np.zeros(len(gemms))
        # Written in reverse, so that what stays is of the first.
        first[gemm[some][::-1]] = gemms.rows[some][::-1]
        return cls(
            gemm=which,
            starts=np.searchsorted(which, np.arange(len(gemms))),
            rows=_SUBLANES * np.maximum(blocks, 1)[:, None].astype(np.float64),
            count=np.where(blocks > 0, count, 0)[:, None].astype(np.float64),
            first=first[:, None],
        )

    def each(self, of_gemms: npt.NDArray[N]) -> npt.NDArray[N]:
        """What is known of each GEMM [gemms, ..], for each of its groups [groups, ..]."""
        return of_gemms.take(self.gemm, axis=0)

    def summed(self, of_groups: F64) -> F64:
        """The sum over a GEMM's groups, each as often as it is there: [gemms, ..] of [groups, ..]."""
        return np.add.reduceat(of_groups * self.count, self.starts, axis=0)


@dataclass(frozen=True, eq=False)
class Visits:
    """Visits of each group [groups, tiles]: ``full`` of them have all rows of a tile, and one, the last, may have less.

    ``rows`` of the last one, the ``buckets`` that it computes, and in how many ``products``: the buckets of a full one
    are one product; others are made in products of powers of two (PallasTile.stretches), each of which fills and drains
    the matrix units.
    """

    full: F64
    rows: F64
    buckets: F64
    products: F64


def visits_of(groups: Groups, tile_m: F64, bucket_m: F64) -> Visits:
    """Visits of ``tile_m`` rows, computed in buckets of ``bucket_m``: both [gemms, tiles]."""
    tile, bucket = groups.each(tile_m), groups.each(bucket_m)
    full = np.ceil(groups.rows / tile) - 1.0
    rows = groups.rows - full * tile
    buckets = np.ceil(rows / bucket)
    is_full: Mask = buckets == np.ceil(tile / bucket)
    products = np.where(is_full, 1.0, np.bitwise_count(buckets.astype(np.int64)).astype(np.float64))
    # The last bucket of a full visit may be smaller.
    return Visits(full, rows, np.where(is_full, tile / bucket, buckets), products)
