"""A whole block of multi-head latent attention (MLA): its projections and the attention between them.

Stacks time the block as one module, since what they fuse differs. In decode the heads' projections of keys and values
are absorbed into the queries, so that all heads read one latent vector a token; in prefill keys and values are made.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from moe_codesign.arrays import F64
from moe_codesign.cost.bound import Bounds
from moe_codesign.cost.operations.operation import Coefficients, Rates, Sizes, joined, missed
from moe_codesign.cost.operations.precision import BYTES, flops_per_us

_VARIANTS = tuple(
    f"{weights}/{product}/{kept}"
    for weights in ("bfloat16", "fp8_block", "nvfp4")
    for product, kept in (("bfloat16", "bfloat16"), ("bfloat16", "fp8"), ("fp8", "fp8"))
)
"""Data type of the projections' weights, of attention's products, and of the latent vectors that are kept."""


@dataclass(frozen=True)
class LatentCoefficients(Coefficients):
    """What is fitted of an MLA block.

    Args:
        project: time of the projections' products over that at peak. matrix: the same of attention's.
        weights: time of reading the weights over that at full bandwidth. memory: the same of the latent vectors.
        head_us: fixed time of a head. launch_us: fixed time.
        token_ns: what each new token adds, such as its norm and its quantisation.
        overlap: exponent by which the sides of each part join, over 2.
        kept: share of the L2 that still holds what the run before read. held: least share that is fetched.
    """

    project: float = 1.5
    matrix: float = 1.5
    weights: float = 1.2
    memory: float = 1.2
    head_us: float = 0.05
    launch_us: float = 30.0
    token_ns: float = 5.0
    overlap: float = 1.0
    kept: float = 0.5
    held: float = 0.5

    least: ClassVar[dict[str, float]] = {"project": 1.0, "matrix": 1.0, "weights": 1.0, "memory": 1.0}


def _weights(sizes: Sizes) -> F64:
    """Weights of the projections: of queries down and up, of the latent vector, of heads up from it, and out."""
    heads, hidden, rank = sizes["num_heads"], sizes["hidden"], sizes["kv_lora_rank"]
    nope, rope, value, q_rank = sizes["qk_nope"], sizes["qk_rope"], sizes["v_head_dim"], sizes["q_lora_rank"]
    queries = np.where(q_rank > 0, hidden * q_rank + q_rank * heads * (nope + rope), hidden * heads * (nope + rope))
    return queries + hidden * (rank + rope) + heads * rank * (nope + value) + heads * value * hidden


_COLUMNS = (
    "batch", "num_heads", "hidden", "q_lora_rank", "kv_lora_rank", "qk_nope", "qk_rope", "v_head_dim",
)  # fmt: skip


class LatentDecode:
    """One new token of each sequence after ``context`` others."""

    name = "latent_decode"
    columns = (*_COLUMNS, "context")
    variants = _VARIANTS
    coefficients = LatentCoefficients

    def shape_key(self, sizes: Sizes) -> list[str]:
        return _shape_key(sizes)

    def bounds(self, rates: Rates, variant: str, sizes: Sizes) -> Bounds:
        return _bounds(rates, variant, sizes, sizes["batch"], self._flops(sizes), self._latents(sizes))

    def physics_us(self, rates: Rates, variant: str, x: LatentCoefficients, sizes: Sizes) -> F64:
        return _physics(rates, variant, x, sizes, sizes["batch"], self._flops(sizes), self._latents(sizes))

    def features(self, rates: Rates, variant: str, sizes: Sizes) -> list[F64]:
        return [
            np.log(sizes["batch"]), np.log(sizes["context"] + 1), np.log(sizes["num_heads"]),
            np.log(sizes["batch"] * (sizes["context"] + 1)), sizes["hidden"], sizes["q_lora_rank"],
        ]  # fmt: skip

    @staticmethod
    def _latents(sizes: Sizes) -> F64:
        """Numbers of latent vectors that are read."""
        return sizes["batch"] * (sizes["context"] + 1) * (sizes["kv_lora_rank"] + sizes["qk_rope"])

    @staticmethod
    def _flops(sizes: Sizes) -> F64:
        """Every head against the latent vectors themselves, and their sum."""
        seen = sizes["batch"] * (sizes["context"] + 1) * sizes["num_heads"]
        return 2 * seen * (2 * sizes["kv_lora_rank"] + sizes["qk_rope"])


class LatentPrefill:
    """``tokens`` new tokens of each of ``batch`` sequences after ``past`` others, causally."""

    name = "latent_prefill"
    columns = (*_COLUMNS, "tokens", "past")
    variants = _VARIANTS
    coefficients = LatentCoefficients

    def shape_key(self, sizes: Sizes) -> list[str]:
        return _shape_key(sizes)

    def bounds(self, rates: Rates, variant: str, sizes: Sizes) -> Bounds:
        new = sizes["batch"] * sizes["tokens"]
        return _bounds(rates, variant, sizes, new, self._flops(sizes), self._latents(sizes))

    def physics_us(self, rates: Rates, variant: str, x: LatentCoefficients, sizes: Sizes) -> F64:
        new = sizes["batch"] * sizes["tokens"]
        return _physics(rates, variant, x, sizes, new, self._flops(sizes), self._latents(sizes))

    def features(self, rates: Rates, variant: str, sizes: Sizes) -> list[F64]:
        return [
            np.log(sizes["batch"]), np.log(sizes["tokens"]), np.log1p(sizes["past"]), np.log(sizes["num_heads"]),
            np.log(sizes["batch"] * sizes["tokens"]), sizes["hidden"], sizes["q_lora_rank"],
        ]  # fmt: skip

    @staticmethod
    def _latents(sizes: Sizes) -> F64:
        tokens = sizes["past"] + sizes["tokens"]
        return sizes["batch"] * tokens * (sizes["kv_lora_rank"] + sizes["qk_rope"])

    @staticmethod
    def _flops(sizes: Sizes) -> F64:
        new, past = sizes["tokens"], sizes["past"]
        pairs = new * past + new * (new + 1) / 2
        width = sizes["qk_nope"] + sizes["qk_rope"] + sizes["v_head_dim"]
        return 2 * sizes["batch"] * sizes["num_heads"] * pairs * width


def _shape_key(sizes: Sizes) -> list[str]:
    """As of attention with one key-value head of the latent vector's width."""
    return [
        f"{int(heads)}-1-{int(rank + rope)}"
        for heads, rank, rope in zip(sizes["num_heads"], sizes["kv_lora_rank"], sizes["qk_rope"], strict=True)
    ]


def _bounds(rates: Rates, variant: str, sizes: Sizes, tokens: F64, flops: F64, latents: F64) -> Bounds:
    weights, product, kept = variant.split("/")
    projected = 2 * tokens * _weights(sizes) / flops_per_us(rates.flops, weights, rates.chip)
    attended = flops / flops_per_us(rates.flops, product, rates.chip)
    moved = _weights(sizes) * BYTES[weights] + latents * BYTES[kept] + 4 * tokens * sizes["hidden"]
    return Bounds(projected + attended, moved / rates.bytes)


def _physics(
    rates: Rates, variant: str, x: LatentCoefficients, sizes: Sizes, tokens: F64, flops: F64, latents: F64
) -> F64:
    weights, product, kept = variant.split("/")
    exponent = 2 + x.overlap
    weight_bytes, latent_bytes = _weights(sizes) * BYTES[weights], latents * BYTES[kept]
    share = np.maximum(missed(rates, x.kept, weight_bytes + latent_bytes), min(x.held, 1.0))
    projections = joined(
        exponent,
        x.project * 2 * tokens * _weights(sizes) / flops_per_us(rates.flops, weights, rates.chip),
        x.weights * share * weight_bytes / rates.bytes,
        4 * tokens * sizes["hidden"] / rates.bytes,
    )
    attention = joined(
        exponent,
        x.matrix * flops / flops_per_us(rates.flops, product, rates.chip),
        x.memory * share * latent_bytes / rates.bytes,
    )
    fixed = x.launch_us + x.head_us * sizes["num_heads"] + 1e-3 * x.token_ns * tokens
    return projections + attention + fixed
