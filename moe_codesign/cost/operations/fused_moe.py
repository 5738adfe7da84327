"""A fused MoE layer by whichever kernels a stack takes, whose tiles are not known: CUTLASS, DeepGEMM, Triton.

Both grouped products run at the best of a few heights of tiles. Loads are of the busiest rank.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from moe_codesign.arrays import F64
from moe_codesign.cost.bound import Bounds
from moe_codesign.cost.operations.operation import Coefficients, Rates, Sizes, joined, missed, waves
from moe_codesign.cost.operations.precision import BYTES, flops_per_us

_WEIGHTS = {
    "bfloat16": ("bfloat16", "bfloat16"),
    "fp8": ("fp8", "fp8"),
    "fp8_block": ("fp8_block", "fp8_block"),
    "nvfp4": ("nvfp4", "nvfp4"),
    "w4a16_mxfp4": ("mxfp4", "bfloat16"),
    "w4a8_mxfp4_mxfp8": ("mxfp4", "fp8"),
    "int4_wo": ("int4", "bfloat16"),
}
"""Data types of the weights, and of the products, by the name of a mode."""
HEIGHTS = (8, 16, 32, 64, 128, 256)
"""Rows of the tiles that are tried; ``tiles_H`` holds how many of H rows the rank's experts fill."""
_WIDTH = 128.0


@dataclass(frozen=True)
class MoeCoefficients(Coefficients):
    """What is fitted of a fused MoE layer.

    Args:
        matrix: time of a tile's products over that at peak. step_us: of a step of k that is no product.
        program_us: start and end of a program.
        memory: time of reading weights over that at full bandwidth. rows: the same of rows that are read and written.
        share: share of the cores whose programs are enough to fill the memory's bandwidth.
        launch_us: fixed time. expert_ns: what each local expert adds, choice_ns each choice of a token.
        overlap: exponent by which the sides join, over 2.
        kept: share of the L2 that still holds weights from the run before. held: least share that is fetched.
    """

    matrix: float = 1.3
    step_us: float = 0.03
    program_us: float = 1.0
    memory: float = 1.15
    rows: float = 1.0
    share: float = 0.5
    launch_us: float = 15.0
    expert_ns: float = 5.0
    choice_ns: float = 0.3
    overlap: float = 1.0
    kept: float = 0.4
    held: float = 0.5

    least: ClassVar[dict[str, float]] = {"matrix": 1.0, "memory": 1.0}


class FusedMoe:
    """Routed experts of one rank: both grouped products, what is between them, and the sum of a token's results."""

    name = "fused_moe"
    columns = (
        "tokens", "hidden", "width", "up_width", "experts", "local_experts", "top_k", "rows", "active", "whole_width",
        *(f"tiles_{height}" for height in HEIGHTS),
    )  # fmt: skip
    variants = tuple(_WEIGHTS)
    coefficients = MoeCoefficients

    def shape_key(self, sizes: Sizes) -> list[str]:
        """As of whole layers: hidden-inter-experts-topk, of the undivided width."""
        names = ("hidden", "whole_width", "experts", "top_k")
        return ["-".join(str(int(one)) for one in row) for row in zip(*(sizes[name] for name in names), strict=True)]

    def bounds(self, rates: Rates, variant: str, sizes: Sizes) -> Bounds:
        weights, product = _WEIGHTS[variant]
        flops = 2 * sizes["rows"] * sizes["hidden"] * (sizes["up_width"] + sizes["width"])
        moved = _weight_bytes(sizes, weights)
        return Bounds(flops / flops_per_us(rates.flops, product, rates.chip), moved / rates.bytes)

    def physics_us(self, rates: Rates, variant: str, x: MoeCoefficients, sizes: Sizes) -> F64:
        weights, product = _WEIGHTS[variant]
        hidden, width, up = sizes["hidden"], sizes["width"], sizes["up_width"]
        item = BYTES[product]
        read = _weight_bytes(sizes, weights)
        fetched = read * np.maximum(missed(rates, x.kept, read), min(x.held, 1.0)) / rates.bytes
        moved = sizes["rows"] * (hidden + width) * (item + 2) + 2 * sizes["rows"] * up
        rows = x.rows * moved / rates.bytes
        per_core = flops_per_us(rates.flops, product, rates.chip) / rates.cores
        depth = 128.0 / item
        best = np.full(len(read), np.inf)
        for height in HEIGHTS:
            tiles = sizes[f"tiles_{height}"]
            step = x.matrix * 2 * max(height, 16) * _WIDTH * depth / per_core + x.step_us * (0.5 + height / 256)
            first, second = tiles * np.ceil(up / _WIDTH), tiles * np.ceil(hidden / _WIDTH)
            core = waves(first / rates.cores) * (np.ceil(hidden / depth) * step + x.program_us)
            core = core + waves(second / rates.cores) * (np.ceil(width / depth) * step + x.program_us)
            memory = x.memory * fetched / np.clip(first / rates.cores / x.share, 1e-2, 1.0) + rows
            best = np.minimum(best, joined(2 + x.overlap, core, memory))
        choices = sizes["tokens"] * sizes["top_k"]
        return best + x.launch_us + 1e-3 * (x.expert_ns * sizes["local_experts"] + x.choice_ns * choices)

    def features(self, rates: Rates, variant: str, sizes: Sizes) -> list[F64]:
        first = sizes["tiles_64"] * np.ceil(sizes["up_width"] / _WIDTH) / rates.cores
        return [
            np.log(sizes["tokens"]), np.log(sizes["hidden"]), np.log(sizes["width"]), np.log(sizes["local_experts"]),
            np.log(sizes["experts"]), sizes["top_k"], np.log(sizes["rows"]), np.log(sizes["active"]),
            np.log(sizes["rows"] / sizes["active"]), np.log(first), first / np.ceil(first),
            sizes["width"] % 128, sizes["up_width"] / sizes["width"],
        ]  # fmt: skip


def _weight_bytes(sizes: Sizes, weights: str) -> F64:
    return sizes["active"] * sizes["hidden"] * (sizes["up_width"] + sizes["width"]) * BYTES[weights]
