"""Which rows of which group each step of a grouped matmul works on.

A visit is up to ``tile_m`` rows of one group. It starts on a whole block of eight rows (the sublanes of a memory tile,
inside which no copy can start), so its first rows may belong to earlier groups. Rows after its last whole block are
left to the visit that completes that block.

Three kernels plan visits, and :func:`list_visits` is what they share. The plans differ because the kernels do: the
TPU's matmul (here) skips groups without rows and needs to know which groups have some; the gradient to the weights
(:mod:`moe_kernels.pallas.weight_gradient`) gives each group at least one visit, which writes zeros, and keeps every
block inside the array; the host's matmul (:mod:`moe_kernels.pallas.host_matmul.matmul`) runs on a plain grid of
blocks, so its visits start on multiples of ``tile_m``.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from moe_kernels.tile import SUBLANES


class Visits(NamedTuple):
    """The plan as int32 arrays on the device. V is a bound on the number of visits, G the number of groups.

    Args:
        group: [V] the group of each visit.
        first: [V] the row that a visit's block of rows starts at, a multiple of eight.
        begin, end: [V] the first row of the visit's group in that block, and the end of its rows.
        rank: [V] the place of the visit's group among the groups that have rows.
        active: [G] the groups that have rows, in order, then repeats of the last.
        counts: [2] how many visits there are, and how many groups have rows.
    """

    group: jax.Array
    first: jax.Array
    begin: jax.Array
    end: jax.Array
    rank: jax.Array
    active: jax.Array
    counts: jax.Array


def visit_bound(num_rows: int, num_groups: int, tile_m: int) -> int:
    """The most visits that any group sizes can cause."""
    groups = min(num_groups, num_rows)
    return max(1, (num_rows + (SUBLANES - 1) * groups) // tile_m + groups)


def list_visits(per_group: jax.Array, bound: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Visits in the order of their groups.

    Args:
        per_group: int32 [G], visits of each group.
        bound: length of the list, no less than their sum.

    Returns:
        Group int32 [bound] of each visit, its place int32 [bound] among its group's visits, and the number of visits
        int32 [1]. Entries past that number repeat the last visit.
    """
    until = jnp.cumsum(per_group)
    index = jnp.minimum(jnp.arange(bound, dtype=jnp.int32), jnp.maximum(until[-1] - 1, 0))
    group = jnp.minimum(jnp.searchsorted(until, index, side="right").astype(jnp.int32), per_group.shape[0] - 1)
    return group, index - (until[group] - per_group[group]), until[-1:]


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
    group, place, count = list_visits(per_group, visit_bound(num_rows, num_groups, tile_m))
    first = base[group] + place * tile_m
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
        counts=jnp.stack([count[0], has_rows[-1]]).astype(jnp.int32),
    )
