"""Grouped matmul over expert-sorted rows on a plain grid of blocks: what the host runs, through XLA.

``lhs`` [M, K] holds rows in group order, each weight [G, K, N]; group g owns rows offsets[g] .. offsets[g+1].
Any group sizes: empty ones, ones that are no multiple of the tile. ``gate_up`` multiplies by two weights and
writes SwiGLU of the results; ``up`` by one and writes squared ReLU; ``down`` by one. bfloat16 in, float32
accumulation in VMEM.

The grid is (column tiles, visits, depth tiles). A visit is one (row tile, group) that overlap; a row tile that
three groups share is visited three times in a row, its output block stays in VMEM, and each visit writes only
its own rows. The number of visits has a static bound, so the grid is static (the TPU compiler's static profile
needs that) and visits past the last one move and compute nothing.
"""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from moe_kernels.kernel import Kernel, Op, Problem
from moe_kernels.tile import BlockedTile

Visits = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


def visit_bound(num_rows: int, num_groups: int, tile_m: int) -> int:
    """Most visits that any group sizes cause: row tiles, plus one for each boundary between groups with rows."""
    return max(1, -(-num_rows // tile_m) + min(num_groups, num_rows) - 1)


def plan_visits(group_sizes: jax.Array, num_rows: int, tile_m: int) -> Visits:
    """Which group and row tile each visit has.

    Args:
        group_sizes: int32 [G], summing to ``num_rows``.
        num_rows: M.
        tile_m: rows of a tile.

    Returns:
        group int32 [V], row tile int32 [V], offsets int32 [G + 1], count int32 [1] of real visits. Visits past
        the count repeat the last one, so that no block is fetched for them.
    """
    num_groups = group_sizes.shape[0]
    bound = visit_bound(num_rows, num_groups, tile_m)
    sizes = group_sizes.astype(jnp.int32)
    ends = jnp.cumsum(sizes)
    starts = ends - sizes
    first = starts // tile_m
    per_group = jnp.where(sizes > 0, (ends - 1) // tile_m - first + 1, 0)
    until = jnp.cumsum(per_group)
    index = jnp.minimum(jnp.arange(bound, dtype=jnp.int32), jnp.maximum(until[-1] - 1, 0))
    group = jnp.minimum(jnp.searchsorted(until, index, side="right"), num_groups - 1)
    row_tile = first[group] + index - (until[group] - per_group[group])
    offsets = jnp.concatenate([jnp.zeros(1, jnp.int32), ends])
    return group.astype(jnp.int32), row_tile.astype(jnp.int32), offsets, until[-1:].astype(jnp.int32)


def _step(
    group_ref: Any,
    row_tile_ref: Any,
    offsets_ref: Any,
    count_ref: Any,
    lhs_ref: Any,
    *refs: Any,
    op: Op,
    depth: int,
    tile_k: int,
) -> None:
    num_weights = 2 if op == "gate_up" else 1
    weight_refs, out_ref, acc_refs = refs[:num_weights], refs[num_weights], refs[num_weights + 1 :]
    visit, k = pl.program_id(1), pl.program_id(2)
    last_k = -(-depth // tile_k) - 1
    tail = depth - last_k * tile_k

    def multiply(valid: int) -> None:
        lhs = lhs_ref[...]
        if valid < tile_k:  # what lies past K in the block is undefined, and NaN times 0 is NaN
            lhs = jnp.where(jax.lax.broadcasted_iota(jnp.int32, lhs.shape, 1) < valid, lhs, 0)
        for weight_ref, acc_ref in zip(weight_refs, acc_refs, strict=True):
            weight = weight_ref[...]
            if valid < tile_k:
                weight = jnp.where(jax.lax.broadcasted_iota(jnp.int32, weight.shape, 0) < valid, weight, 0)
            acc_ref[...] += jax.lax.dot(lhs, weight, preferred_element_type=jnp.float32)

    @pl.when(visit < count_ref[0])
    def _real_visit() -> None:
        @pl.when(k == 0)
        def _clear() -> None:
            for acc_ref in acc_refs:
                acc_ref[...] = jnp.zeros_like(acc_ref)

        if tail == tile_k:
            multiply(tile_k)
        else:
            pl.when(k < last_k)(lambda: multiply(tile_k))
            pl.when(k == last_k)(lambda: multiply(tail))

        @pl.when(k == last_k)
        def _write() -> None:
            group, row_tile = group_ref[visit], row_tile_ref[visit]
            value = acc_refs[0][...]
            if op == "gate_up":
                value = value * jax.nn.sigmoid(value) * acc_refs[1][...]
            elif op == "up":
                value = jnp.square(jnp.maximum(value, 0.0))
            row = row_tile * out_ref.shape[0] + jax.lax.broadcasted_iota(jnp.int32, out_ref.shape, 0)
            mine = (row >= offsets_ref[group]) & (row < offsets_ref[group + 1])
            fresh = (visit == 0) | (row_tile_ref[jnp.maximum(visit - 1, 0)] != row_tile)
            before = jnp.where(fresh, 0.0, out_ref[...].astype(jnp.float32))
            out_ref[...] = jnp.where(mine, value, before).astype(out_ref.dtype)


def visit_matmul(
    visits: Visits,
    lhs: jax.Array,
    *weights: jax.Array,
    op: Op,
    tile: BlockedTile,
    interpret: bool = False,
) -> jax.Array:
    """The kernel over planned visits; see :func:`blocked_matmul`. A tile larger than the problem is cut to it."""
    num_rows, depth = lhs.shape
    columns = weights[0].shape[2]
    tile_m, tile_k, tile_n = min(tile.tile_m, num_rows), min(tile.tile_k, depth), min(tile.tile_n, columns)
    last_k = -(-depth // tile_k) - 1

    def depth_block(visit: Any, k: Any, count: Any) -> Any:
        return jnp.where(visit < count[0], k, last_k)

    def lhs_block(n: Any, v: Any, k: Any, group: Any, row_tile: Any, offsets: Any, count: Any) -> tuple[Any, ...]:
        return row_tile[v], depth_block(v, k, count)

    def weight_block(n: Any, v: Any, k: Any, group: Any, row_tile: Any, offsets: Any, count: Any) -> tuple[Any, ...]:
        return group[v], depth_block(v, k, count), n

    def out_block(n: Any, v: Any, k: Any, group: Any, row_tile: Any, offsets: Any, count: Any) -> tuple[Any, ...]:
        return row_tile[v], n

    return pl.pallas_call(
        functools.partial(_step, op=op, depth=depth, tile_k=tile_k),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=4,
            grid=(-(-columns // tile_n), visits[0].shape[0], last_k + 1),
            in_specs=[
                pl.BlockSpec((tile_m, tile_k), lhs_block),
                *(pl.BlockSpec((None, tile_k, tile_n), weight_block) for _ in weights),
            ],
            out_specs=pl.BlockSpec((tile_m, tile_n), out_block),
            scratch_shapes=[pltpu.VMEM((tile_m, tile_n), jnp.float32) for _ in weights],
        ),
        out_shape=jax.ShapeDtypeStruct((num_rows, columns), lhs.dtype),
        # Column tiles are independent: chips with two cores share them out.
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary", "arbitrary")),
        interpret=interpret,
        name="blocked_matmul",
    )(*visits, lhs, *weights)


@functools.partial(jax.jit, static_argnames=("op", "tile", "interpret"))
def blocked_matmul(
    lhs: jax.Array,
    weights: tuple[jax.Array, ...],
    group_sizes: jax.Array,
    *,
    op: Op,
    tile: BlockedTile,
    interpret: bool = False,
) -> jax.Array:
    """Multiply each group's rows by its own weights.

    Args:
        lhs: [M, K], rows in group order.
        weights: (gate, up) for ``gate_up``, else one; each [G, K, N].
        group_sizes: int32 [G], summing to M.
        op: what to do with the products.
        tile: rows, depth and columns of one step.
        interpret: compile for the host through XLA instead of for a TPU.

    Returns:
        [M, N] in the type of ``lhs``.
    """
    visits = plan_visits(group_sizes, lhs.shape[0], min(tile.tile_m, lhs.shape[0]))
    return visit_matmul(visits, lhs, *weights, op=op, tile=tile, interpret=interpret)


def _refuses(problem: Problem, tile: BlockedTile, target: str | None) -> str | None:
    if problem.dtype != "bfloat16":
        return f"dtype {problem.dtype} is not supported by pallas.blocked_matmul; use bfloat16"
    if tile.tile_m % 16:
        return f"tile_m = {tile.tile_m} is no multiple of 16, the bfloat16 sublane tile"
    for field in ("tile_k", "tile_n"):
        if getattr(tile, field) % 128:
            return f"{field} = {getattr(tile, field)} is no multiple of 128, the lane count"
    return None


def _default_tile(problem: Problem, rows_per_group: float, target: str | None) -> BlockedTile:
    """An untuned user's tile: 512 x 512 weights keep every generation's matrix units fed and fit any VMEM."""
    return BlockedTile(tile_m=16 if rows_per_group <= 16 else 128, tile_k=512, tile_n=512)


KERNEL = Kernel(
    name="pallas.blocked_matmul",
    tile_type=BlockedTile,
    tile_spaces={"grid": {"tile_m": (16, 64, 128, 256), "tile_k": (512, 768, 1024), "tile_n": (256, 512, 768)}},
    launch_fields=frozenset(),
    dtypes=("bfloat16",),
    refuses=_refuses,
    default_tile=_default_tile,
    sources=(Path(__file__),),
    build=None,
    on_host=True,
)
