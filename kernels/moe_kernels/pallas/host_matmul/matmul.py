"""The grouped matmul on a plain grid of blocks: what the host runs, through XLA.

``lhs`` [M, K] holds rows in group order, and each weight is [G, K, N]; group g owns rows offsets[g] .. offsets[g+1].
Any group sizes will do, empty groups included. ``gate_up`` multiplies by two weights and writes SwiGLU of the
products, ``up`` multiplies by one and writes squared ReLU, ``down`` multiplies by one. Operands are bfloat16, sums
float32.

The grid is (column tiles, visits, depth tiles). A visit is one row tile and one group that overlap. A row tile that
three groups share is visited three times in a row: its output block stays in memory, and each visit writes its own
rows alone. The number of visits has a static bound, so the grid is static; visits past the last one move and compute
nothing.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from moe_kernels.kernel import Op
from moe_kernels.pallas.visits import list_visits
from moe_kernels.tile import BlockedTile

Visits = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


def visit_bound(num_rows: int, num_groups: int, tile_m: int) -> int:
    """The most visits that any group sizes can cause: row tiles, and one per boundary between groups with rows."""
    return max(1, -(-num_rows // tile_m) + min(num_groups, num_rows) - 1)


def plan_visits(group_sizes: jax.Array, num_rows: int, tile_m: int) -> Visits:
    """The group and row tile of each visit; unlike those of :mod:`moe_kernels.pallas.visits`, row tiles are a grid's.

    Args:
        group_sizes: int32 [G], summing to ``num_rows``.
        num_rows: M.
        tile_m: rows of a tile.

    Returns:
        Group int32 [V], row tile int32 [V], offsets int32 [G + 1], and the number of visits int32 [1]. Entries past
        that number repeat the last visit, so that no block is fetched for them.
    """
    sizes = group_sizes.astype(jnp.int32)
    ends = jnp.cumsum(sizes)
    starts = ends - sizes
    first = starts // tile_m
    per_group = jnp.where(sizes > 0, (ends - 1) // tile_m - first + 1, 0)
    group, place, count = list_visits(per_group, visit_bound(num_rows, group_sizes.shape[0], tile_m))
    offsets = jnp.concatenate([jnp.zeros(1, jnp.int32), ends])
    return group, first[group] + place, offsets, count


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
    """The kernel over planned visits, as :func:`host_matmul` calls it. A tile larger than the problem is cut to it."""
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
        name="host_matmul",
    )(*visits, lhs, *weights)


def _check(lhs: jax.Array, weights: tuple[jax.Array, ...], group_sizes: jax.Array, op: Op) -> None:
    """Raise ValueError for operands that do not fit each other: the kernel checks no address."""
    wanted = 2 if op == "gate_up" else 1
    if not isinstance(weights, tuple) or len(weights) != wanted:
        given = len(weights) if isinstance(weights, tuple) else type(weights).__name__
        raise ValueError(f"op {op} takes a tuple of {wanted} weights, not {given}")
    if lhs.ndim != 2 or not lhs.shape[0] or any(w.ndim != 3 for w in weights):
        raise ValueError(f"lhs {lhs.shape} and weights {weights[0].shape} should be [M, K] with rows and [G, K, N]")
    if any(w.shape != weights[0].shape for w in weights):
        raise ValueError(f"gate {weights[0].shape} and up {weights[1].shape} differ; give two of a kind")
    groups, depth, columns = weights[0].shape
    if lhs.shape[1] != depth or not depth or not columns:
        raise ValueError(f"lhs {lhs.shape} and weights {weights[0].shape} differ in K, or K or N is 0")
    if any(array.dtype != jnp.bfloat16 for array in (lhs, *weights)):
        types = ", ".join(str(array.dtype) for array in (lhs, *weights))
        raise ValueError(f"operands are {types}; give bfloat16, which is what the host's kernel multiplies")
    if group_sizes.shape != (groups,) or not jnp.issubdtype(group_sizes.dtype, jnp.integer):
        raise ValueError(f"group_sizes {group_sizes.shape} {group_sizes.dtype} should be whole numbers ({groups},)")
    if not isinstance(group_sizes, jax.core.Tracer):
        sizes = np.asarray(group_sizes)
        if sizes.min() < 0 or sizes.sum() != lhs.shape[0]:
            raise ValueError(
                f"group_sizes sum to {sizes.sum()}, the least is {sizes.min()}; give sizes of 0 or more that sum to "
                f"the {lhs.shape[0]} rows"
            )


def host_matmul(
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
        lhs: bfloat16 [M, K], rows in group order.
        weights: (gate, up) for ``gate_up``, else one; each bfloat16 [G, K, N].
        group_sizes: int32 [G], summing to M.
        op: which GEMM of the layer it is: what is done with the products.
        tile: rows, depth and columns of one step.
        interpret: True compiles it for the host through XLA.

    Returns:
        bfloat16 [M, N].

    Raises:
        ValueError: operands or, where they are known, group sizes do not fit each other. Those of a traced function are
            known on the device alone, and have to be right.
    """
    _check(lhs, weights, group_sizes, op)
    return _host_matmul(lhs, weights, group_sizes, op=op, tile=tile, interpret=interpret)


@functools.partial(jax.jit, static_argnames=("op", "tile", "interpret"))
def _host_matmul(
    lhs: jax.Array,
    weights: tuple[jax.Array, ...],
    group_sizes: jax.Array,
    *,
    op: Op,
    tile: BlockedTile,
    interpret: bool,
) -> jax.Array:
    visits = plan_visits(group_sizes, lhs.shape[0], min(tile.tile_m, lhs.shape[0]))
    return visit_matmul(visits, lhs, *weights, op=op, tile=tile, interpret=interpret)
