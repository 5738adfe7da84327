"""The gradient to the weights of a grouped matmul on a TPU: each group's rows, transposed, times their gradients.

A visit is up to ``tile_m`` rows of one group (:mod:`moe_kernels.pallas.visits`). The blocks of both operands start at
its rows, so a boundary between groups costs no second visit. Rows of other groups in a block count as zero. The visits
of a group are summed in a float32 accumulator that stays in VMEM. A group without rows has one visit, which writes
zeros.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from moe_kernels.pallas.visits import list_visits
from moe_kernels.tile import SUBLANES, PallasTile


def _plan(group_sizes: jax.Array, num_rows: int, tile_m: int) -> tuple[jax.Array, ...]:
    """Group, first block of eight rows, begin and end of its rows, each [V]; the count [1]. Each group has a visit."""
    num_groups = group_sizes.shape[0]
    sizes = group_sizes.astype(jnp.int32)
    ends = jnp.cumsum(sizes)
    starts = ends - sizes
    base = starts // SUBLANES * SUBLANES
    per_group = jnp.maximum(-((base - ends) // tile_m), 1)
    bound = (num_rows + (SUBLANES - 1) * num_groups) // tile_m + 2 * num_groups
    group, place, count = list_visits(per_group, bound)
    first = base[group] + place * tile_m
    # The last blocks start where they still fit into the array; begin and end say which of their rows are meant.
    last = max(-(-num_rows // SUBLANES) * SUBLANES - tile_m, 0)
    begin, end = jnp.maximum(starts[group], first), jnp.minimum(ends[group], first + tile_m)
    return group, jnp.minimum(first, last) // SUBLANES, begin, end, count


def _step(group: Any, block: Any, begin: Any, end: Any, count: Any, left: Any, right: Any, out: Any, acc: Any) -> None:
    visit = pl.program_id(2)
    first = block[visit] * SUBLANES
    fresh = (visit == 0) | (group[visit] != group[jnp.maximum(visit - 1, 0)])
    last = (visit == count[0] - 1) | (group[visit] != group[jnp.minimum(visit + 1, count[0] - 1)])

    def own(rows: Any) -> jax.Array:
        # Both sides: what lies past the array's rows may be NaN, and NaN times zero is NaN.
        row = first + lax.broadcasted_iota(jnp.int32, rows.shape, 0)
        return jnp.where((row >= begin[visit]) & (row < end[visit]), rows[...], 0)

    # float32 operands are multiplied as such, not in bfloat16 passes.
    precision = lax.Precision.HIGHEST if left.dtype == jnp.float32 else None
    contract = (((0,), (0,)), ((), ()))
    product = lax.dot_general(own(left), own(right), contract, precision=precision, preferred_element_type=jnp.float32)

    @pl.when(fresh)
    def _first() -> None:
        acc[...] = product

    @pl.when(~fresh)
    def _more() -> None:
        acc[...] += product

    @pl.when(last)
    def _store() -> None:
        out[...] = acc[...].astype(out.dtype)


@functools.partial(jax.jit, static_argnames=("tile", "interpret"))
def weight_gradient(
    left: jax.Array, right: jax.Array, group_sizes: jax.Array, *, tile: PallasTile, interpret: Any = False
) -> jax.Array:
    """``left[rows].T @ right[rows]`` over the rows of each group: [G, K, N] in the type of ``left``.

    Args:
        left: [M, K], rows in group order.
        right: [M, N], rows in group order.
        group_sizes: int32 [G], whose sum may fall short of M.
        tile: tile_m rows per visit, tile_k x tile_n of the weights per program.
        interpret: ``pltpu.InterpretParams`` runs the kernel on the host.

    Raises:
        ValueError: tile_m is not a multiple of eight, or tile_k or tile_n is not a multiple of 128.
    """
    for field, unit in (("tile_m", SUBLANES), ("tile_k", 128), ("tile_n", 128)):
        if getattr(tile, field) % unit:
            raise ValueError(f"{field} = {getattr(tile, field)} is not a multiple of {unit}")
    (num_rows, k), n, num_groups = left.shape, right.shape[1], group_sizes.shape[0]
    if num_rows < SUBLANES:
        # An array of fewer than eight rows has memory tiles of as many rows; padded, it has tiles of eight.
        padding = ((0, SUBLANES - num_rows), (0, 0))
        left, right, num_rows = jnp.pad(left, padding), jnp.pad(right, padding), SUBLANES
    tile_m = min(tile.tile_m, -(-num_rows // SUBLANES) * SUBLANES)
    tile_k, tile_n = min(tile.tile_k, k), min(tile.tile_n, n)
    group, block, begin, end, count = _plan(group_sizes, num_rows, tile_m)
    beyond = -num_rows % SUBLANES

    def left_block(a: Any, b: Any, v: Any, group: Any, block: Any, *rest: Any) -> tuple[Any, ...]:
        return block[v] * SUBLANES, a * tile_k if tile_k < k else 0

    def right_block(a: Any, b: Any, v: Any, group: Any, block: Any, *rest: Any) -> tuple[Any, ...]:
        return block[v] * SUBLANES, b * tile_n if tile_n < n else 0

    def out_block(a: Any, b: Any, v: Any, group: Any, *rest: Any) -> tuple[Any, ...]:
        return group[v], a, b

    def rows_spec(columns: int, size: int, index: Any) -> pl.BlockSpec:
        return pl.BlockSpec((pl.Element(tile_m, (0, beyond)), pl.Element(columns, (0, -size % columns))), index)

    return pl.pallas_call(
        _step,
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=5,
            grid=(-(-k // tile_k), -(-n // tile_n), count[0]),
            in_specs=[rows_spec(tile_k, k, left_block), rows_spec(tile_n, n, right_block)],
            out_specs=pl.BlockSpec((None, tile_k, tile_n), out_block),
            scratch_shapes=[pltpu.VMEM((tile_k, tile_n), jnp.float32)],
        ),
        out_shape=jax.ShapeDtypeStruct((num_groups, k, n), left.dtype),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel", "arbitrary")),
        interpret=interpret,
        name="weight_gradient",
    )(group, block, begin, end, count, left, right)
