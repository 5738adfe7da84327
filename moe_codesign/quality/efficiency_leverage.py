"""Efficiency Leverage, arXiv 2507.17702, table 2.

A mixture of experts with M forward FLOPs per token learns as much as a dense model with EL x M. Two shapes
trained on the same tokens are of equal quality where EL x M is equal.

The bases of the logarithms are inferred (log10 of C, log2 of G): they give the paper's "over 7x" and its
optimum near G = 12.
"""

import math
from dataclasses import dataclass

from moe_codesign.domain.shape import MoEShape
from moe_codesign.quality.law import Quality

_A_EXP, _D_C, _GAMMA, _BETA = 1.23, -7.61e-2, 1.67e-2, -1.17e-1
_A_START, _A_MAX = 1.63e-2, 5.28e16
# Range of the paper's runs.
_COMPUTE_RANGE = (1e18, 3e20)
_ACTIVATION_RANGE = (0.008, 1.0)
_GRANULARITY_RANGE = (2.0, 16.0)


def forward_flops_per_token(shape: MoEShape) -> float:
    """Non-embedding forward FLOPs per token of the whole model.

    Attention is counted as four hidden_size x hidden_size projections a layer (Kaplan et al., 2001.08361,
    table 1, with d_attn = d_model); the router and the experts as they are.
    """
    attention = 2.0 * 4 * shape.hidden_size**2
    router = 2.0 * shape.hidden_size * (shape.num_experts + shape.zero_expert_num)
    return shape.num_layers * (shape.active_flops_per_token + attention + router)


@dataclass(frozen=True)
class EfficiencyLeverage:
    """The law; see :mod:`moe_codesign.quality.law` for what it is asked."""

    measure: str = "dense-equivalent compute"

    def quality(self, shape: MoEShape, training_tokens: float) -> Quality:
        """Dense-equivalent FLOPs per token of ``shape`` after ``training_tokens``."""
        outside = []
        for label, value, (low, high) in (
            ("C", forward_flops_per_token(shape) * training_tokens, _COMPUTE_RANGE),
            ("A", activated_share(shape), _ACTIVATION_RANGE),
            ("G", granularity(shape), _GRANULARITY_RANGE),
        ):
            if not low <= value <= high:
                outside.append(f"{label}={value:.3g} outside {low:g}..{high:g}")
        if shape.moe_latent_size is not None:
            outside.append(f"experts at a latent width of {shape.moe_latent_size}")
        if shape.zero_expert_num:
            outside.append(f"{shape.zero_expert_num} zero experts")
        return Quality(leverage(shape, training_tokens) * forward_flops_per_token(shape), tuple(outside))


def activated_share(shape: MoEShape) -> float:
    """A = (k + s) / (E + s), with s shared experts."""
    shared = shape.n_shared_experts
    return (shape.choices_of_experts + shared) / (shape.num_experts + shared)


def granularity(shape: MoEShape) -> float:
    """G = 2 H / I."""
    return 2.0 * shape.hidden_size / shape.moe_intermediate_size


def leverage(shape: MoEShape, training_tokens: float) -> float:
    """EL: FLOPs of the dense model that learns as much, over those of the shape.

    C = M x D is the training compute, with M forward FLOPs per token and D ``training_tokens``.
    """
    compute = forward_flops_per_token(shape) * training_tokens
    a_hat = 1.0 / (1.0 / (activated_share(shape) + 1.0 / (1.0 / _A_START - 1.0 / _A_MAX)) + 1.0 / _A_MAX)
    log_g = math.log2(granularity(shape))
    return float(a_hat ** (_A_EXP + _D_C * math.log10(compute) + _GAMMA * log_g**2 + _BETA * log_g))


LAW = EfficiencyLeverage()
