"""The physics of a stack's fused operation without one of its terms: what each term is worth."""

import dataclasses
from collections.abc import Callable

import numpy as np

from moe_codesign.arrays import F64
from moe_codesign.calibrations.stacks import StackCoefficients
from moe_codesign.chips import GpuChip
from moe_codesign.cost.stacks.columns import Columns
from moe_codesign.cost.stacks.physics import GemmTerms, Grid, Terms, gemm_shapes, gemm_terms, grid_of

Change = Callable[[Terms, Columns, GpuChip, str], Terms]
_FAR_US = 1e9
"""Latency of a load from the L2 that is never the shorter one."""


def _with_grids(change: Callable[[Columns, Terms, F64, F64, Grid], Grid]) -> Change:
    """The same work cut in another way."""

    def changed(t: Terms, columns: Columns, chip: GpuChip, dtype: str) -> Terms:
        first, second = (
            gemm_terms(
                columns, chip, dtype, t.tiles, shape,
                change(columns, t, shape.k, shape.n, grid_of(columns, chip, dtype, t.tiles, shape)),
            )
            for shape in gemm_shapes(columns, dtype)
        )  # fmt: skip
        return dataclasses.replace(t, gemms=(first, second))

    return changed


def _unrounded(columns: Columns, t: Terms, k: F64, n: F64, grid: Grid) -> Grid:
    return Grid(
        row_tiles=np.maximum(columns.rows / t.tiles.block_m, 1e-9),
        across=n / t.tiles.block_n,
        steps=k / t.tiles.block_k,
        resident=grid.resident,
    )


def _one_block_a_core(columns: Columns, t: Terms, k: F64, n: F64, grid: Grid) -> Grid:
    return dataclasses.replace(grid, resident=np.ones(len(columns)))


def _without_waves(t: Terms, columns: Columns, chip: GpuChip, dtype: str) -> Terms:
    grids = [grid_of(columns, chip, dtype, t.tiles, shape) for shape in gemm_shapes(columns, dtype)]
    fills = (grid.blocks / (chip.core.count * grid.resident) for grid in grids)
    first, second = (
        dataclasses.replace(g, waves=np.maximum(fill, 1.0)) for g, fill in zip(t.gemms, fills, strict=True)
    )
    return dataclasses.replace(t, gemms=(first, second))


def _gemms(**values: Callable[[GemmTerms], F64]) -> Change:
    """Fields of both GEMMs, replaced."""

    def changed(t: Terms, columns: Columns, chip: GpuChip, dtype: str) -> Terms:
        first, second = (dataclasses.replace(g, **{name: of(g) for name, of in values.items()}) for g in t.gemms)
        return dataclasses.replace(t, gemms=(first, second))

    return changed


def _without_elementwise(t: Terms, columns: Columns, chip: GpuChip, dtype: str) -> Terms:
    first, second = (dataclasses.replace(a, elementwise_us=0 * a.elementwise_us) for a in t.after)
    return dataclasses.replace(t, after=(first, second))


def _never_cached(t: Terms, columns: Columns, chip: GpuChip, dtype: str) -> Terms:
    first, second = (dataclasses.replace(a, bytes=np.full(len(columns), np.inf)) for a in t.after)
    return dataclasses.replace(t, after=(first, second))


def _without_other_ranks(t: Terms, columns: Columns, chip: GpuChip, dtype: str) -> Terms:
    first, second = (dataclasses.replace(a, zeros_us=0 * a.zeros_us) for a in t.after)
    return dataclasses.replace(t, after=(first, second), zero_blocks=0 * t.zero_blocks, empty_blocks=0 * t.empty_blocks)


def _same(t: Terms, columns: Columns, chip: GpuChip, dtype: str) -> Terms:
    return t


TERMS: dict[str, Change] = {
    "tiles": _with_grids(_unrounded),
    "waves": _without_waves,
    "residency": _with_grids(_one_block_a_core),
    "latency": _gemms(stages=lambda g: np.full(len(g.stages), np.inf)),
    "near": _same,
    "l2": _gemms(l2_us=lambda g: 0 * g.l2_us),
    "reread": _gemms(bands=lambda g: 0 * g.bands),
    "elementwise": _without_elementwise,
    "cached": _never_cached,
    "remote": _without_other_ranks,
    "align": lambda t, columns, chip, dtype: dataclasses.replace(t, pairs=0 * t.pairs),
    "short": _gemms(short=lambda g: 0 * g.short),
    "narrow": lambda t, columns, chip, dtype: dataclasses.replace(t, narrow=0 * t.narrow),
}
"""By name, the terms without that one. ``near`` is a coefficient alone: see :func:`coefficients_without`."""


def coefficients_without(name: str, x: StackCoefficients) -> StackCoefficients:
    """The coefficients to begin a fit at: without ``near``, no load is faster than one from HBM."""
    return dataclasses.replace(x, near_us=_FAR_US) if name == "near" else x
