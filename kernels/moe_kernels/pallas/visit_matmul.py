"""The kernel of the grouped matmul over planned visits.

Rows [M, K] lie in group order; each group's are multiplied by its own weights. What a plain grid of blocks loses is
won back by copying by hand:

- A **visit** starts where its group starts (on a whole block of eight rows), so a group of 512 rows is one visit of 512
  and not two halves of neighbours' tiles. Rows that a block shares with earlier groups are carried in VMEM, and each
  block of the result is written once.
- **Weights are read once**: in the order of columns they stay while their group's rows pass; in the order of rows a
  visit takes its whole group. Copies run several blocks ahead, over visits and groups, so that the latency of HBM
  hides behind the matrix units even where a step is short.
- **The whole depth in one step** needs no accumulator in VMEM; a shorter tile_k takes one.
- Rows are computed in **buckets**: a visit of 40 rows costs what 40 rows cost. All buckets of a full visit are one
  product; those of others a few, of powers of two, so that the matrix units seldom fill and drain.

Neither M, K nor N needs to be a multiple of the tile; K and N of eight.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from moe_kernels.pallas.activation import activate
from moe_kernels.pallas.visits import SUBLANES, Visits
from moe_kernels.tile import LANES, PallasTile


@dataclass(frozen=True)
class _Form:
    """What one compiled form depends on. ``rows``, ``copies``, ``apart``: see :func:`visit_matmul`."""

    tile: PallasTile
    k: int
    n: int
    matrices: int
    activation: str
    transposed: bool
    scale_rows: int
    rows: int | None
    copies: bool
    apart: bool

    @property
    def tile_k(self) -> int:
        return min(self.tile.tile_k, self.k)

    @property
    def tile_n(self) -> int:
        return min(self.tile.tile_n, self.n)

    @property
    def depth_tiles(self) -> int:
        return -(-self.k // self.tile_k)

    @property
    def column_tiles(self) -> int:
        return -(-self.n // self.tile_n)

    @property
    def cores(self) -> int:
        """Those that the column tiles can be shared out to evenly."""
        return self.tile.cores if self.column_tiles % self.tile.cores == 0 else 1

    @property
    def columns_per_core(self) -> int:
        return self.column_tiles // self.cores

    @property
    def keeps_weights(self) -> bool:
        """Weights stay while their group's rows pass."""
        return not self.tile.rows_outer and self.depth_tiles == 1


class _Refs(NamedTuple):
    visits: Visits
    rows: Any
    weights: tuple[Any, ...]
    scale: Any
    out: Any
    rows_buf: Any
    weights_buf: Any
    scale_buf: Any
    wide: Any
    acc: Any
    out_buf: Any
    carry: Any
    rows_sem: Any
    weights_sem: Any
    out_sem: Any
    written: Any


class _Place(NamedTuple):
    """Where a step is: visit, column tile of this core and of all, depth tile."""

    visit: Any
    column: Any
    n: Any
    k: Any


def _when(condition: Any, known: bool | None = None) -> Callable[[Callable[[], None]], None]:
    """``pl.when``, decided at once where the condition is known."""

    def run(body: Callable[[], None]) -> None:
        if known is None:
            pl.when(condition)(body)
        elif known:
            body()

    return run


def _cut(index: Any, tile: int, size: int, unit: int, body: Callable[[Any, int], None]) -> None:
    """``body(start, length)`` of block ``index`` of an axis; a last, shorter one is rounded up to ``unit``.

    Memory is laid out in whole tiles of sublanes and lanes: what is copied beyond ``size`` exists, and is ignored.
    """
    count, tail = -(-size // tile), size % tile
    if count == 1:
        body(0, size)
    elif not tail:
        body(pl.multiple_of(index * tile, tile), tile)
    else:
        padded = -(-tail // unit) * unit
        pl.when(index < count - 1)(lambda: body(pl.multiple_of(index * tile, tile), tile))
        pl.when(index == count - 1)(lambda: body(pl.multiple_of(index * tile, tile), padded))


def _kernel(*args: Any, form: _Form) -> None:
    refs = _unpack(args, form)
    tile, visits = form.tile, refs.visits
    num_visits, num_active = visits.counts[0], visits.counts[1]
    core = pl.program_id(0)
    outer, inner, k = pl.program_id(1), pl.program_id(2), pl.program_id(3)
    visit, column = (outer, inner) if tile.rows_outer else (inner, outer)
    per_core, depth = form.columns_per_core, form.depth_tiles
    at = _Place(visit, column, core * per_core + column, k)
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

    def copy_weights(number: Any, *, start: bool) -> None:
        if not form.copies:
            return
        pair, at_k = lax.div(number, depth), lax.rem(number, depth)
        if tile.rows_outer:
            at_unit, at_column = lax.div(pair, per_core), lax.rem(pair, per_core)
        else:
            at_column, at_unit = lax.div(pair, units), lax.rem(pair, units)
        group = visits.active[at_unit] if form.keeps_weights else visits.group[at_unit]
        slot = lax.rem(number, tile.weight_buffers)
        _copy_weights(refs, form, group, core * per_core + at_column, at_k, slot, start=start)

    def copy_rows(number: Any, *, start: bool) -> None:
        if not form.copies:
            return
        at_visit = number if tile.rows_outer else lax.rem(number, num_visits)
        _copy_rows(refs, form, at_visit, lax.rem(number, tile.row_buffers), start=start)

    weights_total = units * per_core * depth
    rows_total = num_visits if tile.rows_outer else num_visits * per_core
    known = None if form.rows is None else True

    @pl.when(is_first)
    def _fill() -> None:
        for ahead in range(tile.weight_buffers - 1):
            _when(ahead < weights_total, known)(functools.partial(copy_weights, ahead, start=True))
        for ahead in range(tile.row_buffers - 1):
            _when(ahead < rows_total, known)(functools.partial(copy_rows, ahead, start=True))

    rows_number = visit if tile.rows_outer else column * num_visits + visit

    @pl.when(start_of_rows)
    def _next_rows() -> None:
        ahead = rows_number + tile.row_buffers - 1
        _when(ahead < rows_total, known)(lambda: copy_rows(ahead, start=True))
        copy_rows(rows_number, start=False)

    number = weights_number(unit)
    slot = lax.rem(number, tile.weight_buffers)

    @_when(fresh, fresh_known)
    def _next_weights() -> None:
        ahead = number + tile.weight_buffers - 1
        _when(ahead < weights_total, known)(lambda: copy_weights(ahead, start=True))
        copy_weights(number, start=False)
        _widen(refs, form, slot)

    _compute(refs, form, at, lax.rem(rows_number, tile.row_buffers), slot, num_visits)


def _unpack(args: tuple[Any, ...], form: _Form) -> _Refs:
    fields = len(Visits._fields)
    visits, rest = Visits(*args[:fields]), list(args[fields:])
    rows, weights = rest.pop(0), tuple(rest.pop(0) for _ in range(form.matrices))
    scale = rest.pop(0) if form.scale_rows else None
    out, rows_buf, weights_buf = rest.pop(0), rest.pop(0), rest.pop(0)
    scale_buf, wide = (rest.pop(0), rest.pop(0)) if form.scale_rows else (None, None)
    acc = rest.pop(0) if form.depth_tiles > 1 else None
    return _Refs(visits, rows, weights, scale, out, rows_buf, weights_buf, scale_buf, wide, acc, *rest)


def _move(source: Any, target: Any, semaphore: Any, *, start: bool) -> None:
    copy = pltpu.make_async_copy(source, target, semaphore)
    if start:
        copy.start()
    else:
        copy.wait()


def _copy_rows(refs: _Refs, form: _Form, visit: Any, slot: Any, *, start: bool) -> None:
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

        _cut(k, form.tile_k, form.k, LANES, move)


def _copy_weights(refs: _Refs, form: _Form, group: Any, n: Any, k: Any, slot: Any, *, start: bool) -> None:
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

        _cut(k, form.tile_k, form.k, LANES if form.transposed else SUBLANES, move_block)
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

    _cut(n, form.tile_n, form.n, SUBLANES if form.transposed else LANES, move)


def _widen(refs: _Refs, form: _Form, slot: Any) -> None:
    """8-bit weights to the type of the rows, once per block: each visit of the group reads them wide.

    One scale a column is applied to the result, where it is exact; scales of blocks of K to the weights.
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


def _compute(refs: _Refs, form: _Form, at: _Place, rows_slot: Any, slot: Any, num_visits: Any) -> None:
    tile, visits = form.tile, refs.visits
    first, end = visits.first[at.visit], visits.end[at.visit]
    rows = end - first if form.rows is None else form.rows
    per_core, depth = form.columns_per_core, form.depth_tiles
    results = at.visit * per_core + at.column if tile.rows_outer else at.column * num_visits + at.visit
    out_slot = lax.rem(results, 2)
    last_k = at.k == depth - 1

    @_when(last_k, True if depth == 1 else None)
    def _reuse() -> None:
        pl.when(results >= 2)(lambda: _wait_out(refs, form, out_slot))

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
        _rows(refs, form, at, start, size, rows_slot, slot, out_slot)

    if total == 1:
        product(0, 1)
    elif form.rows is not None:
        _when(end > first, None if form.apart else True)(lambda: product(0, used))
    else:
        pl.when(used == total)(lambda: product(0, total))
        # Of other visits the buckets' number in binary: at most log2 products, and no more code than the full one.
        for count in tile.stretches:
            before = used & ~(2 * count - 1) if 2 * count < total else 0
            pl.when((used < total) & (used & count != 0))(functools.partial(product, before, count))

    @_when(last_k, True if depth == 1 else None)
    def _store() -> None:
        whole = lax.div(rows, SUBLANES) if form.rows is None else rows // SUBLANES
        _keep_shared(refs, form, at, out_slot, whole)
        if form.rows is None:
            # Nobody comes after the last visit to complete its last block.
            whole = jnp.where(at.visit == num_visits - 1, lax.div(rows + (SUBLANES - 1), SUBLANES), whole)
        refs.written[out_slot, 0] = whole
        refs.written[out_slot, 1] = at.n

        _when(whole > 0, None if form.rows is None else True)(
            lambda: _copy_out(refs, form, out_slot, first, whole, at.n, start=True)
        )
        total = num_visits * per_core

        @pl.when(results == total - 1)
        def _drain() -> None:
            _wait_out(refs, form, out_slot)
            pl.when(results >= 1)(lambda: _wait_out(refs, form, 1 - out_slot))


def _keep_shared(refs: _Refs, form: _Form, at: _Place, slot: Any, whole: Any) -> None:
    """Carry the eight rows after the ``whole`` blocks of eight: the next visit's group shares them."""
    # Loads of 16-bit rows start at whole pairs of blocks (tpu7x keeps VMEM in tiles of 16 rows).
    pair = jnp.minimum(whole // 2, form.tile.tile_m // (2 * SUBLANES) - 1)
    rows = refs.out_buf[slot, pl.ds(pl.multiple_of(pair * 2 * SUBLANES, 2 * SUBLANES), 2 * SUBLANES)]
    rows = rows.astype(jnp.float32)
    refs.carry[_carry_slot(form, at)] = jnp.where(whole % 2 == 1, rows[SUBLANES:], rows[:SUBLANES])


def _carry_slot(form: _Form, at: _Place) -> Any:
    return at.column if form.tile.rows_outer else 0


def _copy_out(refs: _Refs, form: _Form, slot: Any, first: Any, blocks: Any, n: Any, *, start: bool) -> None:
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

    _cut(n, form.tile_n, form.n, LANES, move)


def _wait_out(refs: _Refs, form: _Form, slot: Any) -> None:
    blocks, n = refs.written[slot, 0], refs.written[slot, 1]
    if form.rows is not None:
        blocks = form.rows // SUBLANES
    _when(blocks > 0, None if form.rows is None else True)(
        lambda: _copy_out(refs, form, slot, 0, blocks, n, start=False)
    )


def _rows(
    refs: _Refs,
    form: _Form,
    at: _Place,
    start: Any,
    size: int,
    rows_slot: Any,
    slot: Any,
    out_slot: Any,
) -> None:
    """The product of some rows, and at the last depth its result in the output's buffer."""
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
        top = jnp.where(before, refs.carry[_carry_slot(form, at)], value[:SUBLANES])
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
    """The kernel over planned visits; arguments as :func:`grouped_mm`.

    Args:
        num_visits: of the grid, default the plan's own count.
        fixed_rows: of every visit, each of a new group: what an analysis may fix, and else only the device knows.
        copies: false leaves them out, for an analysis of what is computed.
        apart: of fixed rows, the products stand on a condition, as others do; the compiler's profile skips what does.
    """
    num_rows, k = rows.shape
    n = weights[0].shape[1 if transposed else 2]
    scale_rows = 0 if scale is None else scale.shape[2]
    # A tile larger than the problem is cut to it.
    tile_m = min(tile.tile_m, tallest(num_rows))
    cut = {**tile.as_dict(), "tile_m": tile_m, "bucket_m": min(tile.bucket_m, tile_m)}
    form = _Form(
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


def tallest(num_rows: int) -> int:
    """The tile_m that holds all rows."""
    return -(-num_rows // (2 * SUBLANES)) * 2 * SUBLANES


def _vmem_limit() -> int | None:
    try:
        return int(pltpu.get_tpu_info().vmem_capacity_bytes)
    except (ValueError, RuntimeError):
        return None  # no TPU: the host interprets
