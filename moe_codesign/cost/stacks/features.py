"""Inputs of the learned correction."""

import numpy as np

from moe_codesign.arrays import F64
from moe_codesign.cost.stacks.columns import Columns
from moe_codesign.cost.stacks.physics import Terms

INPUTS = 27
"""Inputs of the correction's trees; see :func:`features`."""


def features(columns: Columns, t: Terms, physics_us: F64) -> F64:
    """[rows, features] that the correction is learned from: sizes, loads, and where the physics has its steps."""
    c = columns

    def log(values: F64) -> F64:
        return np.asarray(np.log(np.maximum(values, 1e-9)))

    active = np.maximum(c.active, 1)
    rows = np.maximum(c.rows, 1)
    first, second = (g.matrix_us * g.steps * g.waves for g in t.gemms)
    memory = t.gemms[0].weight_us + t.gemms[1].weight_us
    row_blocks = t.blocks / np.maximum(np.ceil(c.up_width / t.tiles.block_n) + np.ceil(c.hidden / t.tiles.block_n), 1)
    return np.stack(
        [
            *(log(c.num_tokens), log(c.hidden), log(c.width), log(c.local_experts), log(c.experts), c.top_k),
            *(log(c.rows), log(c.active), log(c.rows / active), log(c.largest * active / rows), c.gated),
            log(row_blocks * t.tiles.block_m / rows),
            *(np.minimum(g.waves, 8) for g in t.gemms),
            *(np.minimum(g.steps, 64) for g in t.gemms),
            *(g.bands for g in t.gemms),
            log((first + second) / np.maximum(memory, 1e-9)),
            log(t.gemms[0].weight_bytes + t.gemms[1].weight_bytes),
            log(physics_us),
            log(1 + t.empty_blocks),
            log(1e-6 * c.rows * (c.up_width + c.width)),
            log(c.num_tokens * c.hidden),
            c.width % 128,
            np.gcd(c.width.astype(int), 128).astype(float),
            t.narrow,
        ]
    ).T
