"""The kernel's copies between HBM and VMEM.

Each function starts a copy (``start=True``) or waits for it: a copy in is started several blocks ahead and awaited in
the step that needs it; a copy out is started when a visit is done and awaited when its buffer is needed again.
"""

from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from moe_kernels.pallas.visit_matmul.form import Form, Place, Refs, cut, when
from moe_kernels.tile import LANES, SUBLANES


def _move(source: Any, target: Any, semaphore: Any, *, start: bool) -> None:
    copy = pltpu.make_async_copy(source, target, semaphore)
    if start:
        copy.start()
    else:
        copy.wait()


def copy_rows(refs: Refs, form: Form, visit: Any, slot: Any, *, start: bool) -> None:
    """The rows of a visit, whole blocks of eight at their whole depth, into row buffer ``slot``."""
    first = pl.multiple_of(refs.visits.first[visit], SUBLANES)
    if form.rows is None:
        count = lax.div(refs.visits.end[visit] - first + (SUBLANES - 1), SUBLANES) * SUBLANES
        count = pl.multiple_of(count, SUBLANES)
    else:
        count = form.rows
    for k in range(form.depth_tiles):

        def move(at: Any, length: int, k: int = k) -> None:
            _move(
                refs.rows.at[pl.ds(first, count), pl.ds(at, length)],
                refs.rows_buf.at[slot, k, pl.ds(0, count), pl.ds(0, length)],
                refs.rows_sem.at[slot],
                start=start,
            )

        cut(k, form.tile_k, form.k, LANES, move)


def copy_weights(refs: Refs, form: Form, group: Any, n: Any, k: Any, slot: Any, *, start: bool) -> None:
    """A group's block of each matrix, column tile ``n`` and depth tile ``k``, with scales, into buffer ``slot``."""

    def move(at_n: Any, columns: int) -> None:
        def move_block(at_k: Any, length: int) -> None:
            places = [(at_k, length), (at_n, columns)]
            here, there = (pl.ds(*p) for p in (reversed(places) if form.transposed else places))
            into_a, into_b = (pl.ds(0, size) for _, size in (reversed(places) if form.transposed else places))
            for matrix, weights in enumerate(refs.weights):
                _move(
                    weights.at[group, here, there],
                    refs.weights_buf.at[slot, matrix, into_a, into_b],
                    refs.weights_sem.at[slot],
                    start=start,
                )

        cut(k, form.tile_k, form.k, LANES if form.transposed else SUBLANES, move_block)
        if form.scale_rows:
            blocks = refs.scale_buf.shape[2]
            first = k * blocks if form.scale_rows > 1 else 0
            for matrix in range(form.matrices):
                _move(
                    refs.scale.at[matrix, group, pl.ds(first, blocks), :, pl.ds(at_n, columns)],
                    refs.scale_buf.at[slot, matrix, :, :, pl.ds(0, columns)],
                    refs.weights_sem.at[slot],
                    start=start,
                )

    cut(n, form.tile_n, form.n, SUBLANES if form.transposed else LANES, move)


def copy_out(refs: Refs, form: Form, slot: Any, first: Any, blocks: Any, n: Any, *, start: bool) -> None:
    """``blocks`` blocks of eight rows of result buffer ``slot`` to row ``first``, column tile ``n`` of the output."""
    if not form.copies:
        return
    count = blocks * SUBLANES
    count = count if isinstance(count, int) else pl.multiple_of(count, SUBLANES)

    def move(at: Any, columns: int) -> None:
        _move(
            refs.out_buf.at[slot, pl.ds(0, count), pl.ds(0, columns)],
            refs.out.at[pl.ds(pl.multiple_of(first, SUBLANES), count), pl.ds(at, columns)],
            refs.out_sem.at[slot],
            start=start,
        )

    cut(n, form.tile_n, form.n, LANES, move)


def wait_out(refs: Refs, form: Form, slot: Any) -> None:
    """Wait until result buffer ``slot`` has been written, so that it can be used again."""
    blocks, n = refs.written[slot, 0], refs.written[slot, 1]
    if form.rows is not None:
        blocks = form.rows // SUBLANES
    when(blocks > 0, None if form.rows is None else True)(lambda: copy_out(refs, form, slot, 0, blocks, n, start=False))


def keep_shared(refs: Refs, form: Form, at: Place, slot: Any, whole: Any) -> None:
    """Carry the eight rows after the ``whole`` blocks of eight, which the next visit's group shares and completes."""
    # Loads of 16-bit rows start at whole pairs of blocks (tpu7x keeps VMEM in tiles of 16 rows).
    pair = jnp.minimum(whole // 2, form.tile.tile_m // (2 * SUBLANES) - 1)
    rows = refs.out_buf[slot, pl.ds(pl.multiple_of(pair * 2 * SUBLANES, 2 * SUBLANES), 2 * SUBLANES)]
    rows = rows.astype(jnp.float32)
    refs.carry[carry_slot(form, at)] = jnp.where(whole % 2 == 1, rows[SUBLANES:], rows[:SUBLANES])


def carry_slot(form: Form, at: Place) -> Any:
    """Where the carried rows are: one place per column tile where the columns pass before the next visit comes."""
    return at.column if form.tile.rows_outer else 0
