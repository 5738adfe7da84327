"""The kernel's arithmetic: 8-bit weights widened, products bucket by bucket, and the result of a visit."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from moe_kernels.pallas.activation import activate
from moe_kernels.pallas.visit_matmul.copies import carry_slot, copy_out, keep_shared, wait_out
from moe_kernels.pallas.visit_matmul.form import Form, Place, Refs, when
from moe_kernels.tile import SUBLANES


def widen(refs: Refs, form: Form, slot: Any) -> None:
    """Convert a block of 8-bit weights to the type of the rows, once for all visits of its group.

    Where each column has one scale, the scale is applied to the result later, which is exact. Scales of blocks of K are
    applied to the weights here.
    """
    if not form.scale_rows:
        return
    for matrix in range(form.matrices):
        blocks = refs.scale_buf.shape[2]
        if form.scale_rows == 1:
            refs.wide[matrix] = refs.weights_buf[slot, matrix].astype(refs.wide.dtype)
            continue
        height = form.tile_k // blocks
        for block in range(blocks):
            part = refs.weights_buf[slot, matrix, block * height : (block + 1) * height].astype(jnp.float32)
            scaled = part * refs.scale_buf[slot, matrix, block]
            refs.wide[matrix, block * height : (block + 1) * height] = scaled.astype(refs.wide.dtype)


def multiply_visit(refs: Refs, form: Form, at: Place, rows_slot: Any, slot: Any, num_visits: Any) -> None:
    """One step's products, and in its last depth tile the result's way out.

    Args:
        at: the step.
        rows_slot, slot: which buffers hold its rows and its weights.
        num_visits: visits in all.
    """
    tile, visits = form.tile, refs.visits
    first, end = visits.first[at.visit], visits.end[at.visit]
    rows = end - first if form.rows is None else form.rows
    per_core, depth = form.columns_per_core, form.depth_tiles
    results = at.visit * per_core + at.column if tile.rows_outer else at.column * num_visits + at.visit
    out_slot = lax.rem(results, 2)
    last_k = at.k == depth - 1

    @when(last_k, True if depth == 1 else None)
    def _reuse() -> None:
        pl.when(results >= 2)(lambda: wait_out(refs, form, out_slot))

    total = tile.buckets
    used = lax.div(rows + (tile.bucket_m - 1), tile.bucket_m) if form.rows is None else -(-rows // tile.bucket_m)

    # Buckets that are one product fill and drain the matrix units once, and need less code than each by itself.
    def product(first_bucket: Any, count: int) -> None:
        start = first_bucket * tile.bucket_m
        size = count * tile.bucket_m
        if isinstance(start, int):
            size = min(size, tile.tile_m - start)
        else:
            start = pl.multiple_of(start, tile.bucket_m)
        _multiply_rows(refs, form, at, start, size, rows_slot, slot, out_slot)

    if total == 1:
        product(0, 1)
    elif form.rows is not None:
        when(end > first, None if form.apart else True)(lambda: product(0, used))
    else:
        pl.when(used == total)(lambda: product(0, total))
        # In any other visit the number of buckets is taken in binary: at most log2 products, and no more code than for
        # a full visit.
        for count in tile.stretches:
            before = used & ~(2 * count - 1) if 2 * count < total else 0
            pl.when((used < total) & (used & count != 0))(functools.partial(product, before, count))

    @when(last_k, True if depth == 1 else None)
    def _store() -> None:
        whole = lax.div(rows, SUBLANES) if form.rows is None else rows // SUBLANES
        keep_shared(refs, form, at, out_slot, whole)
        if form.rows is None:
            # No visit follows the last one to complete its last block.
            whole = jnp.where(at.visit == num_visits - 1, lax.div(rows + (SUBLANES - 1), SUBLANES), whole)
        refs.written[out_slot, 0] = whole
        refs.written[out_slot, 1] = at.n

        when(whole > 0, None if form.rows is None else True)(
            lambda: copy_out(refs, form, out_slot, first, whole, at.n, start=True)
        )
        total = num_visits * per_core

        @pl.when(results == total - 1)
        def _drain() -> None:
            wait_out(refs, form, out_slot)
            pl.when(results >= 1)(lambda: wait_out(refs, form, 1 - out_slot))


def _multiply_rows(
    refs: Refs,
    form: Form,
    at: Place,
    start: Any,
    size: int,
    rows_slot: Any,
    slot: Any,
    out_slot: Any,
) -> None:
    """Multiply ``size`` rows from ``start`` on; in the last depth tile also put the result into its buffer."""
    depth = form.depth_tiles
    tail = form.k - (depth - 1) * form.tile_k
    part = pl.ds(start, size)

    def product(matrix: int, length: int) -> jax.Array:
        x = refs.rows_buf[rows_slot, at.k if depth > 1 else 0, part, :length]
        axis = 1 if form.transposed else 0
        block = (slice(None), slice(0, length)) if form.transposed else (slice(0, length), slice(None))
        w = refs.weights_buf[(slot, matrix, *block)] if refs.wide is None else refs.wide[(matrix, *block)]
        # float32 operands are multiplied as such, not in bfloat16 passes.
        precision = lax.Precision.HIGHEST if x.dtype == jnp.float32 else None
        contract = (((1,), (axis,)), ((), ()))
        return lax.dot_general(x, w, contract, precision=precision, preferred_element_type=jnp.float32)

    def finish(products: list[jax.Array]) -> None:
        if form.scale_rows == 1:
            products = [p * refs.scale_buf[slot, m, 0] for m, p in enumerate(products)]
        value = activate(products[0], products[1] if len(products) > 1 else None, form.activation)
        # Rows of earlier groups in the visit's first block of eight.
        row = lax.broadcasted_iota(jnp.int32, (SUBLANES, value.shape[1]), 0) + start
        before = row < refs.visits.begin[at.visit] - refs.visits.first[at.visit]
        top = jnp.where(before, refs.carry[carry_slot(form, at)], value[:SUBLANES])
        value = jnp.concatenate([top, value[SUBLANES:]])
        refs.out_buf[out_slot, part] = value.astype(refs.out_buf.dtype)

    if depth == 1:
        finish([product(matrix, form.k) for matrix in range(form.matrices)])
        return

    @pl.when(at.k == 0)
    def _first() -> None:
        for matrix in range(form.matrices):
            refs.acc[matrix, part] = product(matrix, form.tile_k)

    if depth > 2:

        @pl.when((at.k > 0) & (at.k < depth - 1))
        def _more() -> None:
            for matrix in range(form.matrices):
                refs.acc[matrix, part] += product(matrix, form.tile_k)

    @pl.when(at.k == depth - 1)
    def _last() -> None:
        finish([refs.acc[matrix, part] + product(matrix, tail) for matrix in range(form.matrices)])
