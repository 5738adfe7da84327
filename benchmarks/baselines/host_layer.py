"""What host.toml times: a case is (run, expected, tolerance)."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from moe_kernels import reference
from moe_kernels.pallas.layer import moe_experts
from moe_kernels.tile import BlockedTile


def layer() -> tuple[Callable[[], np.ndarray], np.ndarray, float]:
    """The host's kernels on a small layer: 64 tokens, 8 experts of 512 x 256, top 2."""
    rng = np.random.default_rng(0)
    x, gate, up, down = (
        jnp.asarray(rng.standard_normal(shape) * scale, jnp.bfloat16)
        for shape, scale in (
            ((64, 512), 1),
            ((8, 512, 256), 512**-0.5),
            ((8, 512, 256), 512**-0.5),
            ((8, 256, 512), 1 / 16),
        )
    )
    expert = np.sort(np.concatenate([rng.permutation(8)[:2] for _ in range(64)]))
    sizes = np.bincount(expert, minlength=8)
    token = rng.permutation(128) % 64
    weight = rng.random(128)
    tile = BlockedTile(tile_m=16, tile_k=256, tile_n=256)
    arguments = (
        x, (gate, up), down, jnp.asarray(token, jnp.int32), jnp.asarray(weight, jnp.float32),
        jnp.asarray(sizes, jnp.int32),
    )  # fmt: skip

    def run() -> np.ndarray:
        return np.asarray(moe_experts(*arguments, tile_up=tile, tile_down=tile, interpret=True))

    wide = [np.asarray(a, np.float64) for a in (x, gate, up, down)]
    expected = reference.moe_experts(
        wide[0], wide[1], wide[2], wide[3], token, weight.astype(np.float32).astype(float), sizes
    )
    return run, expected, reference.BF16_TOLERANCE
