"""Efficiency Leverage, arXiv 2507.17702, table 2.

A mixture of experts with M forward FLOPs per token learns as much as a dense model with EL x M. Two shapes
trained on the same tokens are of equal quality where EL x M is equal.

The bases of the logarithms are inferred (log10 of C, log2 of G): they give the paper's "over 7x" and its
optimum near G = 12.
"""

import math
from dataclasses import dataclass

from moe_codesign.domain.shape import MoEShape

_A_EXP, _D_C, _GAMMA, _BETA = 1.23, -7.61e-2, 1.67e-2, -1.17e-1
_A_START, _A_MAX = 1.63e-2, 5.28e16
# Range of the paper's runs.
_COMPUTE_RANGE = (1e18, 3e20)
_ACTIVATION_RANGE = (0.008, 1.0)
_GRANULARITY_RANGE = (2.0, 16.0)


@dataclass(frozen=True)
class Quality:
    """Dense-equivalent compute of a shape, and what of it lies outside the law's range."""

    dense_equivalent_flops_per_token: float
    efficiency_leverage: float
    outside: tuple[str, ...]

    def ratio(self, reference: "Quality") -> float:
        """Above 1: better than the reference at the same training tokens."""
        return self.dense_equivalent_flops_per_token / reference.dense_equivalent_flops_per_token


def forward_flops_per_token(shape: MoEShape) -> float:
    """Non-embedding forward FLOPs per token of the whole model.

    Attention is counted as four hidden_size x hidden_size projections a layer (Kaplan et al., 2001.08361,
    table 1, with d_attn = d_model); the router and the experts as they are.
    """
    attention = 2.0 * 4 * shape.hidden_size**2
    router = 2.0 * shape.hidden_size * shape.num_experts
    return shape.num_layers * (shape.active_flops_per_token + attention + router)


def quality(shape: MoEShape, training_tokens: float) -> Quality:
    """Dense-equivalent compute of ``shape`` after ``training_tokens``.

    With A = (k + s) / (E + s) activated share, G = 2 H / I granularity and C = M x D training compute.
    """
    flops = forward_flops_per_token(shape)
    compute = flops * training_tokens
    shared = shape.n_shared_experts
    activated = (shape.num_experts_per_tok + shared) / (shape.num_experts + shared)
    granularity = 2.0 * shape.hidden_size / shape.moe_intermediate_size
    a_hat = 1.0 / (1.0 / (activated + 1.0 / (1.0 / _A_START - 1.0 / _A_MAX)) + 1.0 / _A_MAX)
    log_g = math.log2(granularity)
    leverage = a_hat ** (_A_EXP + _D_C * math.log10(compute) + _GAMMA * log_g**2 + _BETA * log_g)
    outside = []
    for label, value, (low, high) in (
        ("C", compute, _COMPUTE_RANGE),
        ("A", activated, _ACTIVATION_RANGE),
        ("G", granularity, _GRANULARITY_RANGE),
    ):
        if not low <= value <= high:
            outside.append(f"{label}={value:.3g} outside {low:g}..{high:g}")
    return Quality(leverage * flops, leverage, tuple(outside))
