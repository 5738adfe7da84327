"""Linear attention by the gated delta rule: a convolution and a recurrence, without the projections."""

from dataclasses import dataclass

import numpy as np

from moe_codesign.arrays import F64
from moe_codesign.cost.bound import Bounds
from moe_codesign.cost.operations.operation import Coefficients, Rates, Sizes, joined, waves
from moe_codesign.cost.operations.precision import flops_per_us

_CHUNK = 64.0
"""Tokens of a chunk, within which the rule is a product of matrices."""
_STATE_BYTES = 4.0


@dataclass(frozen=True)
class DeltaCoefficients(Coefficients):
    """What is fitted.

    Args:
        memory: time of bytes over that at full bandwidth.
        matrix: time of a chunk's products over that at peak.
        chunk_us: of a chunk of one head that is no product, one after the other.
        launch_us: fixed time. sequence_us: what each sequence adds.
        overlap: exponent by which the sides join, over 2.
    """

    memory: float = 1.5
    matrix: float = 3.0
    chunk_us: float = 0.5
    launch_us: float = 10.0
    sequence_us: float = 0.01
    overlap: float = 1.0


class GatedDelta:
    """``tokens`` new tokens of each of ``batch`` sequences; in decode one."""

    name = "gated_delta"
    columns = ("batch", "tokens", "num_k_heads", "num_v_heads", "k_head_dim", "v_head_dim", "conv")
    variants = ("decode", "prefill")
    coefficients = DeltaCoefficients

    def shape_key(self, sizes: Sizes) -> list[str]:
        return [
            f"{int(heads)}-{int(kv)}-{int(width)}"
            for heads, kv, width in zip(sizes["num_v_heads"], sizes["num_k_heads"], sizes["v_head_dim"], strict=True)
        ]

    def bounds(self, rates: Rates, variant: str, sizes: Sizes) -> Bounds:
        return Bounds(
            _flops(variant, sizes) / flops_per_us(rates.flops, "bfloat16", rates.chip), _moved(sizes) / rates.bytes
        )

    def physics_us(self, rates: Rates, variant: str, x: DeltaCoefficients, sizes: Sizes) -> F64:
        memory = x.memory * _moved(sizes) / rates.bytes
        fixed = x.launch_us + x.sequence_us * sizes["batch"]
        if variant == "decode":
            return fixed + memory
        fill = sizes["batch"] * sizes["num_v_heads"] / rates.cores
        chain = np.ceil(sizes["tokens"] / _CHUNK) * x.chunk_us * waves(fill)
        matrix = x.matrix * _flops(variant, sizes) / flops_per_us(rates.flops, "bfloat16", rates.chip)
        return fixed + joined(2 + x.overlap, memory, chain, matrix)

    def features(self, rates: Rates, variant: str, sizes: Sizes) -> list[F64]:
        return [
            np.log(sizes["batch"]), np.log(sizes["tokens"]), np.log(sizes["num_v_heads"]),
            np.log(sizes["num_k_heads"]), np.log(sizes["batch"] * sizes["tokens"]),
            np.log(sizes["batch"] * sizes["num_v_heads"] / rates.cores),
        ]  # fmt: skip


def _moved(sizes: Sizes) -> F64:
    """Bytes: the state of each sequence read and written once, and queries, keys, values and results of the tokens."""
    state = sizes["num_v_heads"] * sizes["k_head_dim"] * sizes["v_head_dim"] * _STATE_BYTES
    channels = 2 * sizes["num_k_heads"] * sizes["k_head_dim"] + sizes["num_v_heads"] * sizes["v_head_dim"]
    rows = 2.0 * (3 * channels + sizes["num_v_heads"] * sizes["v_head_dim"])
    return sizes["batch"] * (2 * state + 2.0 * channels * sizes["conv"] + sizes["tokens"] * rows)


def _flops(variant: str, sizes: Sizes) -> F64:
    """Products within chunks and against the state; one token at a time in decode."""
    k, v = sizes["k_head_dim"], sizes["v_head_dim"]
    chunk = 1.0 if variant == "decode" else _CHUNK
    token = 2 * (2 * chunk * k + 2 * chunk * v + 3 * k * v)
    return sizes["batch"] * sizes["tokens"] * sizes["num_v_heads"] * token
