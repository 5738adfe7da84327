"""What host.toml times: a case is (run, expected, tolerance), other ones for each seed."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from moe_kernels import reference
from moe_kernels.pallas.layer import moe_experts
from moe_kernels.tile import BlockedTile


def layer(seed: int) -> tuple[Callable[[], jax.Array], Callable[[], np.ndarray], float]:
    """The host's kernels on a small layer: 64 tokens, 8 experts of 512 x 256, top 2, by one of four routings."""
    rng = np.random.default_rng(seed)
    x, gate, up, down = (
        jnp.asarray(rng.standard_normal(shape) * scale, jnp.bfloat16)
        for shape, scale in (
            ((64, 512), 1),
            ((8, 512, 256), 512**-0.5),
            ((8, 512, 256), 512**-0.5),
            ((8, 256, 512), 1 / 16),
        )
    )
    # Uniform, skewed to the last experts, the even ones alone, the odd ones alone.
    shares = np.array([[1] * 8, [1, 1, 1, 1, 2, 4, 8, 16], [1, 0] * 4, [0, 1] * 4])[seed % 4]
    expert = np.sort(np.concatenate([rng.choice(8, 2, replace=False, p=shares / shares.sum()) for _ in range(64)]))
    sizes = np.bincount(expert, minlength=8)
    token = rng.permutation(128) % 64
    weight = rng.random(128)
    tile = BlockedTile(tile_m=16, tile_k=256, tile_n=256)
    arguments = (
        x, (gate, up), down, jnp.asarray(token, jnp.int32), jnp.asarray(weight, jnp.float32),
        jnp.asarray(sizes, jnp.int32),
    )  # fmt: skip

    def run() -> jax.Array:
        return moe_experts(*arguments, tile_up=tile, tile_down=tile, interpret=True)

    def expected() -> np.ndarray:
        x64, gate64, up64, down64 = (np.asarray(a, np.float64) for a in (x, gate, up, down))
        return reference.moe_experts(x64, gate64, up64, down64, token, weight.astype(np.float32).astype(float), sizes)

    return run, expected, reference.BF16_TOLERANCE
