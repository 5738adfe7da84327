"""Which rows of which group each step of a grouped matmul works on.

A visit is up to ``tile_m`` rows of one group. It starts on a whole block of eight rows (the sublanes of a memory tile,
below which no copy can start), so its first rows may belong to earlier groups; what follows its last whole block is
left to the visit that completes that block.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

SUBLANES = 8


class Visits(NamedTuple):
    """Arrays of the plan, int32, on the device.

    Args:
        group: [V] of each visit.
        first: [V] row that its block of rows starts at, a multiple of eight.
        begin, end: [V] rows of its group in it.
        rank: [V] place of its group among those with rows.
        active: [G] groups with rows, in order, then repeats of the last.
        counts: [2] visits, groups with rows.
    """

    group: jax.Array
    first: jax.Array
    begin: jax.Array
    end: jax.Array
    rank: jax.Array
    active: jax.Array
    counts: jax.Array


def visit_bound(num_rows: int, num_groups: int, tile_m: int) -> int:
    """Most visits that any group sizes cause."""
    groups = min(num_groups, num_rows)
    return max(1, (num_rows + (SUBLANES - 1) * groups) // tile_m + groups)


def plan_visits(group_sizes: jax.Array, num_rows: int, tile_m: int) -> Visits:
    """The visits of these group sizes.

    Args:
        group_sizes: int32 [G]; their sum may fall short of ``num_rows``.
        num_rows: M.
        tile_m: rows of a visit, a multiple of eight.
    """
    num_groups = group_sizes.shape[0]
    sizes = group_sizes.astype(jnp.int32)
    ends = jnp.cumsum(sizes)
    starts = ends - sizes
    base = starts // SUBLANES * SUBLANES
    per_group = jnp.where(sizes > 0, -((base - ends) // tile_m), 0)
    until = jnp.cumsum(per_group)
    bound = visit_bound(num_rows, num_groups, tile_m)
    # Visits past the count repeat the last one; nobody runs them.
    index = jnp.minimum(jnp.arange(bound, dtype=jnp.int32), jnp.maximum(until[-1] - 1, 0))
    group = jnp.minimum(jnp.searchsorted(until, index, side="right").astype(jnp.int32), num_groups - 1)
    first = base[group] + (index - (until[group] - per_group[group])) * tile_m
    has_rows = jnp.cumsum((sizes > 0).astype(jnp.int32))
    ranks = jnp.arange(1, num_groups + 1, dtype=jnp.int32)
    active = jnp.searchsorted(has_rows, jnp.minimum(ranks, jnp.maximum(has_rows[-1], 1))).astype(jnp.int32)
    return Visits(
        group=group,
        first=first,
        begin=jnp.maximum(starts[group], first),
        end=jnp.minimum(ends[group], first + tile_m),
        rank=has_rows[group] - 1,
        active=jnp.minimum(active, num_groups - 1),
        counts=jnp.stack([until[-1], has_rows[-1]]).astype(jnp.int32),
    )
