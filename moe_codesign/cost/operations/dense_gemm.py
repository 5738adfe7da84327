"""A dense matrix product, [m, k] by [k, n], as serving stacks call it: cuBLAS, CUTLASS and DeepGEMM choose the tile.

Which tile a library takes is not known, so each problem runs at the best of a list of tiles and of splits of k. A
tile's programs run in waves over the cores; memory and L2 traffic run beside them. The activations of 8-bit and 4-bit
products are quantised first, which the fixed time and the time of stores take in.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from moe_codesign.arrays import F64
from moe_codesign.cost.bound import Bounds
from moe_codesign.cost.operations.operation import Coefficients, Rates, Sizes, joined, missed, waves
from moe_codesign.cost.operations.precision import BYTES, flops_per_us

_TILES = (
    (16, 64), (16, 128), (32, 64), (32, 128), (64, 64), (64, 128), (128, 64), (128, 128), (64, 256), (128, 256),
    (256, 128), (256, 256),
)  # fmt: skip
"""Rows and columns of the tiles that a library may choose from."""
_SPLITS = (1, 2, 3, 4, 6, 8, 16)
_STEP_BYTES = 128.0
"""Bytes of k that one step of a tile loads from each row: a line of memory."""


@dataclass(frozen=True)
class GemmCoefficients(Coefficients):
    """What is fitted of a dense product.

    Args:
        matrix: time of a tile's products over that at peak.
        step_us: of a step of k that is no product, for a tile of 128 x 128.
        program_us: start and end of a program.
        memory: time of reads over that at full bandwidth. store: the same of writes.
        share: share of the cores whose programs are enough to fill the memory's bandwidth.
        launch_us: fixed time.
        overlap: exponent by which the sides join, over 2.
        reduce: time of adding a split's parts over that of their bytes at the L2's bandwidth.
        cache: time of L2 traffic over that at its bandwidth.
        kept: share of the L2 that still holds operands from the run before.
        held: least share of the operands that is fetched from memory, however small they are.
    """

    matrix: float = 1.3
    step_us: float = 0.02
    program_us: float = 0.8
    memory: float = 1.1
    store: float = 1.0
    share: float = 0.4
    launch_us: float = 1.5
    overlap: float = 1.0
    reduce: float = 1.0
    cache: float = 1.0
    kept: float = 0.5
    held: float = 0.5

    least: ClassVar[dict[str, float]] = {"matrix": 1.0, "memory": 1.0}


class DenseGemm:
    """[m, k] by [k, n]; a variant is the data type of both operands, and what is written has 2 bytes."""

    name = "dense_gemm"
    columns = ("m", "n", "k")
    variants = ("bfloat16", "fp8", "fp8_block", "nvfp4")
    coefficients = GemmCoefficients

    def shape_key(self, sizes: Sizes) -> list[str]:
        return [f"{int(n)}-{int(k)}" for n, k in zip(sizes["n"], sizes["k"], strict=True)]

    def bounds(self, rates: Rates, variant: str, sizes: Sizes) -> Bounds:
        m, n, k = sizes["m"], sizes["n"], sizes["k"]
        read, written = (m + n) * k * BYTES[variant], 2.0 * m * n
        return Bounds(2 * m * n * k / flops_per_us(rates.flops, variant, rates.chip), (read + written) / rates.bytes)

    def physics_us(self, rates: Rates, variant: str, x: GemmCoefficients, sizes: Sizes) -> F64:
        m, n, k = sizes["m"], sizes["n"], sizes["k"]
        item = BYTES[variant]
        operands = (m + n) * k * item
        fetched = operands * np.maximum(missed(rates, x.kept, operands), min(x.held, 1.0)) / rates.bytes
        stored = x.store * 2.0 * m * n / rates.bytes
        per_core = flops_per_us(rates.flops, variant, rates.chip) / rates.cores
        depth = _STEP_BYTES / item
        best = np.full(len(m), np.inf)
        for rows, columns in _TILES:
            tiles = np.ceil(m / rows) * np.ceil(n / columns)
            step = x.matrix * 2 * rows * columns * depth / per_core + x.step_us * (0.5 + (rows + columns) / 256)
            cache = x.cache * tiles * k * (rows + columns) * item / rates.cache_bytes_per_us
            steps = np.ceil(k / depth)
            for split in _SPLITS:
                fill = tiles * split / rates.cores
                core = waves(fill) * (np.ceil(steps / split) * step + x.program_us)
                # A few programs do not keep enough loads in flight to fill the memory's bandwidth.
                memory = x.memory * fetched / np.clip(fill / x.share, 1e-3, 1.0) + stored
                time = joined(2 + x.overlap, core, memory, cache)
                if split > 1:
                    time = time + x.reduce * (0.5 + 4.0 * split * m * n / rates.cache_bytes_per_us)
                best = np.minimum(best, time)
        return best + x.launch_us

    def features(self, rates: Rates, variant: str, sizes: Sizes) -> list[F64]:
        m, n, k = sizes["m"], sizes["n"], sizes["k"]
        bounds = self.bounds(rates, variant, sizes)
        found = [
            np.log(m), np.log(n), np.log(k), np.log(m * n), np.log(bounds.compute_us / bounds.memory_us),
            np.log(n * k * BYTES[variant] / rates.cache_bytes), m % 128, m % 16, n % 256, k % 512,
        ]  # fmt: skip
        for rows, columns in ((64, 128), (128, 128), (128, 256), (256, 128)):
            fill = np.ceil(m / rows) * np.ceil(n / columns) / rates.cores
            found += [np.log(fill), fill / np.ceil(fill)]
        return found
