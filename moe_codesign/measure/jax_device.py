"""The host's CPU (Pallas through XLA, interpret mode) and real TPUs (Pallas compiled), through JAX."""

import functools
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from moe_codesign.arrays import F64
from moe_codesign.domain.tile_pair import TilePair
from moe_codesign.measure.draws import Draw
from moe_codesign.measure.job import LayerJob
from moe_codesign.measure.verification import timed
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
        self._outputs: dict[TilePair, F64] = {}

    def load(self, job: LayerJob) -> None:
        if job.dtype != "bfloat16":
            raise ValueError(f"dtype {job.dtype} is not measured by the Pallas kernels; use bfloat16")
        rng = np.random.default_rng(job.seed)
        experts, hidden, width = len(job.rows), job.hidden_size, job.intermediate_size
        # A hidden unit's variance does not grow with H or I.
        self._hidden = hidden
        self._w_up = tuple(
            self._put(_uniform(rng, (experts, hidden, width), hidden**-0.5), jnp.bfloat16) for _ in range(1 + job.gated)
        )
        self._w_down = self._put(_uniform(rng, (experts, width, hidden), width**-0.5), jnp.bfloat16)
        self._outputs.clear()

    def weights_checksum(self) -> int:
        checksum = 0
        for weights in (*self._w_up, self._w_down):
            # Of a device's array JAX may keep a copy on the host, which does not change with it.
            held = np.asarray(weights) if self.interpret else np.asarray(_words(weights))
            checksum = zlib.crc32(np.ascontiguousarray(held).reshape(-1).view(np.uint8).data, checksum)
        return checksum

    def draw(self, draw: Draw) -> None:
        types = (jnp.bfloat16, jnp.float32, jnp.int32, jnp.int32)
        made = zip(_drawn(draw, self._hidden), types, strict=True)
        self._draw = draw
        self._operands = [self._put(array, dtype) for array, dtype in made]
        jax.block_until_ready(self._operands)

    def changed(self) -> bool:
        again = _drawn(self._draw, self._hidden)
        held = (np.asarray(array) for array in self._operands)
        return not all(np.array_equal(one, other.astype(one.dtype)) for one, other in zip(held, again, strict=True))

    def launch(self, tiles: TilePair) -> float:
        # XLA allocates outputs afresh and interpret mode fills them with NaN, so nothing stale can pass a check.
        us, self._outputs[tiles] = timed(functools.partial(self._call, tiles))
        return us

    def output(self, tiles: TilePair) -> F64:
        return self._outputs[tiles]

    def expected(self, draw: Draw) -> F64:
        def host(array: Any) -> F64:
            return np.asarray(array, dtype=np.float64)

        x, pair_weight, token, sizes = _drawn(draw, self._hidden)
        used = np.flatnonzero(sizes)
        gate, *up = (host(np.asarray(w)[used]) for w in self._w_up)
        down = host(np.asarray(self._w_down)[used])
        return reference.moe_experts(
            host(x.astype(jnp.bfloat16)), gate, up[0] if up else None, down, token, host(pair_weight), sizes[used]
        )

    def _put(self, array: Any, dtype: Any) -> jax.Array:
        return jax.device_put(jnp.asarray(array, dtype=dtype), self._device)

    def _call(self, tiles: TilePair) -> jax.Array:
        x, pair_weight, token, sizes = self._operands
        return moe_experts(
            x,
            self._w_up,
            self._w_down,
            token,
            pair_weight,
            sizes,
            tile_up=self._own(tiles.up),
            tile_down=self._own(tiles.down),
            interpret=self.interpret,
        )

    def _own(self, tile: TileConfig) -> Tile:
        if not isinstance(tile, BlockedTile if self.interpret else PallasTile):
            raise TypeError(f"{self.name} does not run a {type(tile).__name__}")
        return tile


@functools.partial(jax.jit)
def _words(weights: jax.Array) -> jax.Array:
    """A number for each matrix of [E, K, N], summed where it lies; every one of its elements changes it."""
    bits = jax.lax.bitcast_convert_type(weights, jnp.uint16).astype(jnp.uint32)
    place = jnp.arange(weights[0].size, dtype=jnp.uint32).reshape(weights.shape[1:])
    return jnp.sum(bits * (2 * place + 1), axis=(1, 2))  # odd, so that no factor takes a bit away


def _uniform(rng: np.random.Generator, shape: tuple[int, ...], scale: float = 1.0) -> npt.NDArray[np.float32]:
    """Of this standard deviation. Three times faster to draw than normal, and weights are most of the set-up."""
    return (rng.random(shape, dtype=np.float32) - np.float32(0.5)) * np.float32(scale * 12**0.5)


def _drawn(draw: Draw, hidden: int) -> tuple[npt.NDArray[Any], ...]:
    """Activations [T, H], router weights [P], the token of each pair [P], pairs of each expert [E]; always new ones."""
    rng = draw.generator()
    x = _uniform(rng, (draw.tokens, hidden))
    return x, rng.random(draw.pairs, dtype=np.float32) + np.float32(0.1), draw.pair_token(), draw.group_sizes()
