"""The host's CPU (Pallas through XLA, interpret mode) and real TPUs (Pallas compiled), through JAX."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from moe_codesign.arrays import F64
from moe_codesign.domain.tile_pair import TilePair
from moe_codesign.measure.job import LayerJob, TokenOrder, token_orders
from moe_kernels import reference
from moe_kernels.pallas.layer import Tile, moe_experts
from moe_kernels.tile import BlockedTile, PallasTile, TileConfig


class JaxDevice:
    """A JAX device. ``interpret`` turns the same kernel into an XLA program for the host."""

    def __init__(self, platform: str) -> None:
        self._device = jax.local_devices(backend=platform)[0]
        self.interpret = platform == "cpu"
        self.name = self._device.device_kind
        self.software = f"jax {jax.__version__}"
        self._arrays: dict[str, Any] = {}
        self._orders: tuple[TokenOrder, ...] = ()

    def load(self, job: LayerJob) -> None:
        if job.dtype != "bfloat16":
            raise ValueError(f"dtype {job.dtype} is not measured by the Pallas kernels; use bfloat16")
        rng = np.random.default_rng(job.seed)
        experts, hidden, width = len(job.rows), job.hidden_size, job.intermediate_size

        def put(array: Any, dtype: Any) -> jax.Array:
            return jax.device_put(jnp.asarray(array, dtype=dtype), self._device)

        def draw(*shape: int, scale: float = 1.0) -> jax.Array:
            # Uniform, of variance 1: three times faster to draw than normal, and weights are most of the set-up.
            values = (rng.random(shape, dtype=np.float32) - np.float32(0.5)) * np.float32(scale * 12**0.5)
            return put(values, jnp.bfloat16)

        self._orders = token_orders(job)
        # A hidden unit's variance does not grow with H or I.
        self._arrays = {
            "x": draw(job.tokens, hidden),
            "w_up": tuple(draw(experts, hidden, width, scale=hidden**-0.5) for _ in range(1 + job.gated)),
            "w_down": draw(experts, width, hidden, scale=width**-0.5),
            "pair_weight": put(rng.random(sum(job.rows), dtype=np.float32) + np.float32(0.1), jnp.float32),
            "orders": [(put(s, jnp.int32), put(t, jnp.int32)) for s, t in self._orders],
        }

    def _call(self, tiles: TilePair, order: int) -> jax.Array:
        sizes, token = self._arrays["orders"][order]
        # XLA allocates outputs afresh and interpret mode fills them with NaN, so nothing stale can pass a check.
        return moe_experts(
            self._arrays["x"],
            self._arrays["w_up"],
            self._arrays["w_down"],
            token,
            self._arrays["pair_weight"],
            sizes,
            tile_up=self._own(tiles.up),
            tile_down=self._own(tiles.down),
            interpret=self.interpret,
        )

    def _own(self, tile: TileConfig) -> Tile:
        if not isinstance(tile, BlockedTile if self.interpret else PallasTile):
            raise TypeError(f"{self.name} does not run a {type(tile).__name__}")
        return tile

    def run(self, tiles: TilePair, order: int) -> F64:
        return np.asarray(self._call(tiles, order), dtype=np.float64)

    def timer(self, tiles: TilePair) -> Callable[[], float]:
        def once() -> float:
            start = time.perf_counter()
            self._call(tiles, 0).block_until_ready()
            return (time.perf_counter() - start) * 1e6

        return once

    def expected(self, order: int) -> F64:
        def host(name: str) -> F64:
            return np.asarray(self._arrays[name], dtype=np.float64)

        gate, *up = (np.asarray(w, dtype=np.float64) for w in self._arrays["w_up"])
        sizes, token = self._orders[order]
        return reference.moe_experts(
            host("x"), gate, up[0] if up else None, host("w_down"), token, host("pair_weight"), sizes
        )
