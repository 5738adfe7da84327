"""The grouped matmul over expert-sorted rows as a JAX function: forward, and the gradient to the rows."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from moe_kernels.kernel import Problem
from moe_kernels.pallas.activation import GATED
from moe_kernels.pallas.quantize import TYPES
from moe_kernels.pallas.tile_limits import refuses
from moe_kernels.pallas.visit_matmul.form import tallest
from moe_kernels.pallas.visit_matmul.kernel import visit_matmul
from moe_kernels.pallas.visits import plan_visits
from moe_kernels.tile import LANES, SUBLANES, PallasTile


def grouped_mm(
    rows: jax.Array,
    weights: Sequence[jax.Array],
    group_sizes: jax.Array,
    *,
    tile: PallasTile,
    activation: str = "none",
    transposed: bool = False,
    scale: jax.Array | None = None,
    zero_rest: bool = True,
    interpret: Any = False,
) -> jax.Array:
    """Multiply each group's rows by its own weights.

    Args:
        rows: [M, K] in group order, bfloat16 or float32.
        weights: gate and up for a gated activation, else one; each [G, K, N], or [G, N, K] if ``transposed``. Of the
            rows' type, or of 8 bits with ``scale``.
        group_sizes: int32 [G], whose sum may fall short of M. Sizes that are negative or sum to more than M are an
            error where they are known. Those of a traced function are known on the device alone: there negative ones
            count as zero, and the last groups are cut to the rows that there are.
        tile: the tile.
        activation: a name of :mod:`moe_kernels.pallas.activation`.
        transposed: the weights' last axis is summed over, as in the gradient to the rows.
        scale: scales of 8-bit weights, float32 [matrices, G, blocks of K, 1, N]; see
            :mod:`moe_kernels.pallas.quantize`.
        zero_rest: write zeros to the rows past the sum of ``group_sizes``; if False they are not written at all.
        interpret: ``pltpu.InterpretParams()`` runs the kernel on the host.

    Returns:
        [M, N] in the type of ``rows``.

    Raises:
        ValueError: shapes, types or sizes do not fit each other, the kernel refuses the tile, or the call is inside a
            ``jax.shard_map`` that checks over which axes results vary (``check_vma=True``), which the kernel does not
            say.
    """
    weights = _check(rows, weights, group_sizes, activation, transposed, scale)
    if not isinstance(group_sizes, jax.core.Tracer):
        _check_sizes(np.asarray(group_sizes), rows.shape[0])
    try:
        return _grouped_mm(
            rows, weights, group_sizes, tile=tile, activation=activation, transposed=transposed, scale=scale,
            zero_rest=zero_rest, interpret=interpret,
        )  # fmt: skip
    except ValueError as error:
        if "check_vma" not in str(error):
            raise
        raise ValueError(
            "grouped_mm does not say over which mesh axes its result varies; call jax.shard_map(..., check_vma=False)"
        ) from None


def _check(
    rows: jax.Array,
    weights: Sequence[jax.Array],
    group_sizes: jax.Array,
    activation: str,
    transposed: bool,
    scale: jax.Array | None,
) -> tuple[jax.Array, ...]:
    """The weights as a tuple. The kernel checks no address, so whatever does not fit is refused here."""
    if not isinstance(weights, (tuple, list)):
        raise ValueError("weights should be a tuple of one matrix, or of gate and up; give (weights,)")
    if (activation in GATED) != (len(weights) == 2):
        raise ValueError(
            f"activation {activation!r} takes {2 if activation in GATED else 1} weights, not {len(weights)}"
        )
    form = "[G, N, K]" if transposed else "[G, K, N]"
    if rows.ndim != 2 or any(w.ndim != 3 for w in weights):
        raise ValueError(f"rows {rows.shape} and weights {weights[0].shape} should be [M, K] and {form}")
    if any(w.shape != weights[0].shape or w.dtype != weights[0].dtype for w in weights):
        raise ValueError(
            f"gate and up differ: {', '.join(f'{w.shape} {w.dtype}' for w in weights)}; give two of a kind"
        )
    groups, k, n = weights[0].shape if not transposed else (weights[0].shape[i] for i in (0, 2, 1))
    if rows.shape[1] != k:
        raise ValueError(
            f"rows {rows.shape} and weights {weights[0].shape} {form} differ in K: {rows.shape[1]} and {k}"
        )
    sizes = np.shape(group_sizes)
    if sizes != (groups,) or not jnp.issubdtype(jnp.result_type(group_sizes), jnp.integer):
        raise ValueError(
            f"group_sizes {sizes} {jnp.result_type(group_sizes)} should be whole numbers ({groups},), one for each of "
            "the weights"
        )
    if rows.dtype not in (jnp.bfloat16, jnp.float32):
        raise ValueError(f"rows are {rows.dtype}; use bfloat16 or float32")
    narrow = weights[0].dtype in TYPES.values()
    if narrow != (scale is not None):
        raise ValueError(
            f"weights are {weights[0].dtype}, which {'need their' if narrow else 'take no'} scale; "
            "quantize_weights gives values and scale"
        )
    if scale is None:
        if weights[0].dtype != rows.dtype:
            raise ValueError(f"weights are {weights[0].dtype} and rows are {rows.dtype}; convert one")
        return tuple(weights)
    blocks = scale.shape[2] if scale.ndim == 5 else 0
    if scale.shape != (len(weights), groups, blocks, 1, n) or blocks < 1 or k % blocks or scale.dtype != jnp.float32:
        raise ValueError(
            f"scale {scale.shape} {scale.dtype} should be float32 ({len(weights)}, {groups}, blocks of K = {k}, 1, {n})"
        )
    if transposed and blocks > 1:
        raise ValueError("transposed weights take one scale per column; scales of blocks of K are for [G, K, N]")
    return tuple(weights)


def _check_sizes(group_sizes: np.ndarray, num_rows: int) -> None:
    total, least = int(group_sizes.astype(np.int64).sum()), int(group_sizes.min(initial=0))
    if total > num_rows or least < 0:
        raise ValueError(
            f"group_sizes sum to {total}, the least is {least}; give sizes of 0 or more that sum to at most the "
            f"{num_rows} rows"
        )


@functools.partial(jax.jit, static_argnames=("activation", "tile", "transposed", "zero_rest", "interpret"))
def _grouped_mm(
    rows: jax.Array,
    weights: tuple[jax.Array, ...],
    group_sizes: jax.Array,
    *,
    tile: PallasTile,
    activation: str,
    transposed: bool,
    scale: jax.Array | None,
    zero_rest: bool,
    interpret: Any,
) -> jax.Array:
    num_rows, k = rows.shape
    n = weights[0].shape[1 if transposed else 2]
    problem = Problem(op="gate_up" if len(weights) == 2 else "down", dtype="bfloat16", k=k, n=n)
    if reason := refuses(problem, tile, None):
        raise ValueError(f"tile {tile.label()}: {reason}")
    sizes = _within(group_sizes, num_rows)
    # An array of fewer than eight rows has memory tiles of as many rows; padded, it has tiles of eight.
    rows = _padded(rows, {0: max(SUBLANES - num_rows, 0)})
    if getattr(interpret, "buffer_bounds", None) == "logical":
        rows, weights, scale = _in_whole_tiles(rows, weights, scale, tile, transposed)
    visits = plan_visits(sizes, rows.shape[0], min(tile.tile_m, tallest(rows.shape[0])))
    out = visit_matmul(
        visits,
        rows,
        *weights,
        tile=tile,
        activation=activation,
        transposed=transposed,
        scale=scale,
        interpret=interpret,
    )
    out = out[:num_rows, :n]
    if not zero_rest:
        return out
    used = sizes.sum()
    # Only if there are such rows, since this reads and writes the whole result.
    return lax.cond(used < num_rows, lambda o: jnp.where(jnp.arange(num_rows)[:, None] < used, o, 0), lambda o: o, out)


def _within(group_sizes: jax.Array, num_rows: int) -> jax.Array:
    """The sizes, cut to the rows that there are: the kernel checks no bounds."""
    each = jnp.clip(jnp.asarray(group_sizes), 0, num_rows).astype(jnp.int32)
    # A running sum that stops at the number of rows cannot overflow, whatever the sizes are.
    ends = lax.associative_scan(lambda a, b: jnp.minimum(a + b, num_rows), each)
    return jnp.diff(ends, prepend=0)


def _in_whole_tiles(
    rows: jax.Array, weights: tuple[jax.Array, ...], scale: jax.Array | None, tile: PallasTile, transposed: bool
) -> tuple[jax.Array, tuple[jax.Array, ...], jax.Array | None]:
    """Operands with zeros up to whole memory tiles.

    A TPU's memory has them past an array's end, and there a last block is copied with them. The interpreter has them
    only by its ``buffer_bounds="padded"``; by default it takes such a copy for one out of bounds.
    """
    k, n = rows.shape[1], weights[0].shape[1 if transposed else 2]
    deeper = -k % LANES if k > tile.tile_k else 0
    wider = -n % LANES if n > tile.tile_n else 0
    k_axis, n_axis = (2, 1) if transposed else (1, 2)
    rows = _padded(rows, {0: -rows.shape[0] % SUBLANES, 1: deeper})
    weights = tuple(_padded(w, {k_axis: deeper, n_axis: wider}) for w in weights)
    return rows, weights, None if scale is None else _padded(scale, {4: wider})


def _padded(array: jax.Array, more: dict[int, int]) -> jax.Array:
    if not any(more.values()):
        return array
    return jnp.pad(array, [(0, more.get(axis, 0)) for axis in range(array.ndim)])
