"""The host's CPU (Pallas through XLA, interpret mode) and real TPUs (Pallas compiled), through JAX."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from moe_codesign.measure.job import Inputs, Tiles
from moe_codesign.measure.protocol import F64
from moe_kernels.pallas.layer import Tile, moe_experts
from moe_kernels.tile import BlockedTile, PallasTile, Value


class JaxDevice:
    """A JAX device. ``interpret`` turns the same kernel into an XLA program for the host."""

    def __init__(self, platform: str) -> None:
        self._device = jax.local_devices(backend=platform)[0]
        self.interpret = platform == "cpu"
        self.name = self._device.device_kind
        self.software = f"jax {jax.__version__}"
        self._arrays: dict[str, Any] = {}
        self._inputs: Inputs | None = None

    def load(self, inputs: Inputs, dtype: str) -> None:
        if dtype != "bfloat16":
            raise ValueError(f"dtype {dtype} is not measured by the Pallas kernels; use bfloat16")

        def put(array: Any, dtype: Any) -> jax.Array:
            return jax.device_put(jnp.asarray(array, dtype=dtype), self._device)

        self._inputs = inputs
        self._arrays = {
            "x": put(inputs.x, jnp.bfloat16),
            "w_up": tuple(put(w, jnp.bfloat16) for w in (inputs.gate, inputs.up) if w is not None),
            "w_down": put(inputs.down, jnp.bfloat16),
            "pair_weight": put(inputs.pair_weight, jnp.float32),
            "routings": [(put(s, jnp.int32), put(t, jnp.int32)) for s, t in inputs.routings],
        }

    def _call(self, tiles: Tiles, routing: int) -> jax.Array:
        sizes, token = self._arrays["routings"][routing]
        # XLA allocates outputs afresh and interpret mode fills them with NaN, so nothing stale can pass a check.
        return moe_experts(
            self._arrays["x"],
            self._arrays["w_up"],
            self._arrays["w_down"],
            token,
            self._arrays["pair_weight"],
            sizes,
            tile_up=self._tile(tiles[0]),
            tile_down=self._tile(tiles[1]),
            interpret=self.interpret,
        )

    def _tile(self, values: dict[str, Value]) -> Tile:
        return BlockedTile.from_dict(values) if self.interpret else PallasTile.from_dict(values)

    def run(self, tiles: Tiles, routing: int) -> F64:
        return np.asarray(self._call(tiles, routing), dtype=np.float64)

    def timer(self, tiles: Tiles) -> Callable[[], float]:
        def once() -> float:
            start = time.perf_counter()
            self._call(tiles, 0).block_until_ready()
            return (time.perf_counter() - start) * 1e6

        return once

    def weights(self) -> tuple[F64, F64, F64 | None, F64]:
        gate, *up = (np.asarray(w, dtype=np.float64) for w in self._arrays["w_up"])
        x, down = (np.asarray(self._arrays[name], dtype=np.float64) for name in ("x", "w_down"))
        return x, gate, up[0] if up else None, down
