"""The kernel's entry point: the order of steps, which copies are under way in each, and the Pallas call."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from moe_kernels.pallas.visit_matmul.compute import multiply_visit, widen
from moe_kernels.pallas.visit_matmul.copies import copy_rows, copy_weights
from moe_kernels.pallas.visit_matmul.form import Form, Place, refs_of, tallest, when
from moe_kernels.pallas.visits import Visits
from moe_kernels.tile import SUBLANES, PallasTile


def _kernel(*args: Any, form: Form) -> None:
    # Steps run in the order of the grid: core, then visits and column tiles (the outer of the two by rows_outer), then
    # depth tiles. Blocks of weights and of rows are numbered in the order in which steps need them; block i lies in
    # buffer i mod weight_buffers (row_buffers). With three buffers of weights, the step that needs block i does this:
    #
    #     start the copy of block i + 2    (its buffer was block i - 1's, which the last step has finished with)
    #     wait for the copy of block i     (started two blocks ago; blocks 0 and 1 by the first step of all)
    #     multiply by block i              (while blocks i + 1 and i + 2 are on their way)
    #
    # Rows do the same, once per visit, or once per visit and column tile where columns are the outer loop.
    refs = refs_of(args, form)
    tile, visits = form.tile, refs.visits
    num_visits, num_active = visits.counts[0], visits.counts[1]
    core = pl.program_id(0)
    outer, inner, k = pl.program_id(1), pl.program_id(2), pl.program_id(3)
    visit, column = (outer, inner) if tile.rows_outer else (inner, outer)
    per_core, depth = form.columns_per_core, form.depth_tiles
    at = Place(visit, column, core * per_core + column, k)
    is_first = (outer == 0) & (inner == 0) & (k == 0)
    start_of_rows = (k == 0) & (column == 0) if tile.rows_outer else k == 0

    units = num_active if form.keeps_weights else num_visits
    unit = visits.rank[visit] if form.keeps_weights else visit
    fresh = jnp.asarray(True)
    if form.keeps_weights:
        fresh = (visit == 0) | (visits.rank[visit] != visits.rank[jnp.maximum(visit - 1, 0)])
    fresh_known = True if form.rows is not None or not form.keeps_weights else None

    def weights_number(unit: Any) -> Any:
        pair = unit * per_core + column if tile.rows_outer else column * units + unit
        return pair * depth + k

    def move_weights(number: Any, *, start: bool) -> None:
        if not form.copies:
            return
        pair, at_k = lax.div(number, depth), lax.rem(number, depth)
        if tile.rows_outer:
            at_unit, at_column = lax.div(pair, per_core), lax.rem(pair, per_core)
        else:
            at_column, at_unit = lax.div(pair, units), lax.rem(pair, units)
        group = visits.active[at_unit] if form.keeps_weights else visits.group[at_unit]
        slot = lax.rem(number, tile.weight_buffers)
        copy_weights(refs, form, group, core * per_core + at_column, at_k, slot, start=start)

    def move_rows(number: Any, *, start: bool) -> None:
        if not form.copies:
            return
        at_visit = number if tile.rows_outer else lax.rem(number, num_visits)
        copy_rows(refs, form, at_visit, lax.rem(number, tile.row_buffers), start=start)

    weights_total = units * per_core * depth
    rows_total = num_visits if tile.rows_outer else num_visits * per_core
    known = None if form.rows is None else True

    @pl.when(is_first)
    def _fill() -> None:
        for ahead in range(tile.weight_buffers - 1):
            when(ahead < weights_total, known)(functools.partial(move_weights, ahead, start=True))
        for ahead in range(tile.row_buffers - 1):
            when(ahead < rows_total, known)(functools.partial(move_rows, ahead, start=True))

    rows_number = visit if tile.rows_outer else column * num_visits + visit

    @pl.when(start_of_rows)
    def _next_rows() -> None:
        ahead = rows_number + tile.row_buffers - 1
        when(ahead < rows_total, known)(lambda: move_rows(ahead, start=True))
        move_rows(rows_number, start=False)

    number = weights_number(unit)
    slot = lax.rem(number, tile.weight_buffers)

    @when(fresh, fresh_known)
    def _next_weights() -> None:
        ahead = number + tile.weight_buffers - 1
        when(ahead < weights_total, known)(lambda: move_weights(ahead, start=True))
        move_weights(number, start=False)
        widen(refs, form, slot)

    multiply_visit(refs, form, at, lax.rem(rows_number, tile.row_buffers), slot, num_visits)


def visit_matmul(
    visits: Visits,
    rows: jax.Array,
    *weights: jax.Array,
    tile: PallasTile,
    activation: str = "none",
    transposed: bool = False,
    scale: jax.Array | None = None,
    num_visits: Any = None,
    fixed_rows: int | None = None,
    copies: bool = True,
    apart: bool = True,
    interpret: Any = False,
) -> jax.Array:
    """The grouped matmul over planned visits.

    Args:
        visits: from :func:`moe_kernels.pallas.visits.plan_visits`.
        rows, weights, tile, activation, transposed, scale, interpret: as in
            :func:`moe_kernels.pallas.grouped_matmul.matmul.grouped_mm`.
        num_visits: visits that run; by default as many as the plan counts on the device.
        fixed_rows: an analysis may fix the rows of every visit, each of a new group. By default the device alone knows
            them.
        copies: False leaves copies out, for an analysis of what is computed.
        apart: with ``fixed_rows``, keep the products behind a condition, as they are without. The compiler's static
            profile skips what stands behind a condition.

    Returns:
        [M, N] in the type of ``rows``.

    Raises:
        ValueError: tile_k cuts a block of K that shares a scale.
    """
    num_rows, k = rows.shape
    n = weights[0].shape[1 if transposed else 2]
    scale_rows = 0 if scale is None else scale.shape[2]
    # A tile larger than the problem is cut to it.
    tile_m = min(tile.tile_m, tallest(num_rows))
    cut = {**tile.as_dict(), "tile_m": tile_m, "bucket_m": min(tile.bucket_m, tile_m)}
    form = Form(
        PallasTile.from_dict(cut), k, n, len(weights), activation, transposed, scale_rows, fixed_rows, copies, apart
    )
    tile_k, tile_n, depth = form.tile_k, form.tile_n, form.depth_tiles
    if scale_rows > 1 and (k % tile_k or scale_rows % depth):
        raise ValueError(
            f"tile_k = {tile_k} cuts the {scale_rows} blocks of scales of K = {k}; use a tile_k of whole ones"
        )
    tile = form.tile
    block = (tile_n, tile_k) if transposed else (tile_k, tile_n)
    matrices = len(weights)
    scratch: list[Any] = [
        pltpu.VMEM((tile.row_buffers, depth, tile_m, tile_k), rows.dtype),
        pltpu.VMEM((tile.weight_buffers, matrices, *block), weights[0].dtype),
    ]
    if scale is not None:
        blocks = max(scale_rows // depth, 1)
        scratch += [
            pltpu.VMEM((tile.weight_buffers, matrices, blocks, 1, tile_n), jnp.float32),
            pltpu.VMEM((matrices, *block), rows.dtype),
        ]
    if depth > 1:
        scratch.append(pltpu.VMEM((matrices, tile_m, tile_n), jnp.float32))
    scratch += [
        pltpu.VMEM((2, tile_m, tile_n), rows.dtype),
        pltpu.VMEM((form.columns_per_core if tile.rows_outer else 1, SUBLANES, tile_n), jnp.float32),
        pltpu.SemaphoreType.DMA((tile.row_buffers,)),
        pltpu.SemaphoreType.DMA((tile.weight_buffers,)),
        pltpu.SemaphoreType.DMA((2,)),
        pltpu.SMEM((2, 2), jnp.int32),
    ]
    count = visits.counts[0] if num_visits is None else num_visits
    inner = (count, form.columns_per_core) if tile.rows_outer else (form.columns_per_core, count)
    in_hbm = pl.BlockSpec(memory_space=pl.ANY)
    return pl.pallas_call(
        functools.partial(_kernel, form=form),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=len(visits),
            grid=(form.cores, *inner, depth),
            in_specs=[in_hbm] * (1 + matrices + (scale is not None)),
            out_specs=in_hbm,
            scratch_shapes=scratch,
        ),
        out_shape=jax.ShapeDtypeStruct((num_rows, n), rows.dtype),
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary", "arbitrary", "arbitrary"),
            vmem_limit_bytes=_vmem_limit(),
            # Every place is known to exist (tests run with checked bounds); checks are a tenth of a short step.
            disable_bounds_checks=True,
        ),
        interpret=interpret,
        name="grouped_matmul",
    )(*visits, rows, *weights, *(() if scale is None else (scale,)))


def _vmem_limit() -> int | None:
    try:
        return int(pltpu.get_tpu_info().vmem_capacity_bytes)
    except (ValueError, RuntimeError):
        return None  # no TPU: the host interprets
