"""Efficiency Leverage, arXiv 2507.17702, table 2.

A mixture of experts with M forward FLOPs a token learns as much as a dense model with EL x M, where

    EL = Ahat ^ (a + d log10 C + g (log2 G)^2 + b log2 G),   1 / Ahat = 1 / (A + (1 / As - 1 / Am)^-1) + 1 / Am

with the activated share A = (k + s) / (E + s), the granularity G = 2 H / I and the training compute C = M x D. The
bases of the logarithms are inferred (log10 of C, log2 of G): they give the paper's "over 7x" and its optimum near G =
12.

The exponent falls with C. The paper's runs end at 3e20 FLOPs; carried on to the 1e24 of a frontier model it would say
that more active experts make a worse model. So C is held at the edge of the paper's range beyond it, and
:mod:`moe_codesign.quality.judge` leaves out the shapes at which the law still says so.

An outside check: Kimi K2 (arXiv 2507.20534, section 2.3) reports that at 8 active and 1 shared expert and equal loss,
sparsity 48 needs 1.69, 1.39 and 1.15 times fewer FLOPs than 8, 16 and 32. The law gives 1.87 to 1.97, 1.43 to 1.47 and
1.13 at C = 1e20: 17, 6 and 2 % off.
"""

import numpy as np

from moe_codesign.arrays import F64
from moe_codesign.quality.features import Features
from moe_codesign.quality.law import Evidence, Range, SizeLaw

_A_EXP, _D_C, _GAMMA, _BETA = 1.23, -7.61e-2, 1.67e-2, -1.17e-1
_A_START, _A_MAX = 1.63e-2, 5.28e16
_COMPUTE = Range("training compute C", 1e18, 3e20, kind="size")
_SHARE = Range("activated share A", 0.008, 1.0)
_GRANULARITY = Range("granularity G = 2 H / I", 2.0, 16.0)


class EfficiencyLeverage(SizeLaw):
    """The law; see :class:`moe_codesign.quality.law.Law`."""

    name = "efficiency_leverage"
    paper = "Tian et al., arXiv 2507.17702"
    evidence: Evidence = "paper"

    def covered(self, features: Features) -> list[tuple[Range, F64]]:
        return [
            (_COMPUTE, features.compute),
            (_SHARE, features.activated_share),
            (_GRANULARITY, granularity(features)),
        ]

    def loss(self, features: Features) -> F64:
        """The negated logarithm of the dense-equivalent training compute, EL x C."""
        return -np.log(leverage(features) * features.compute)


def granularity(features: Features) -> F64:
    """G = 2 H / I."""
    return 2.0 * features.hidden / features.width


def leverage(features: Features) -> F64:
    """EL: FLOPs of the dense model that learns as much, over those of the shape, with C held at the edge of its
    range."""
    compute = np.clip(features.compute, _COMPUTE.low, _COMPUTE.high)
    share = 1.0 / (1.0 / (features.activated_share + 1.0 / (1.0 / _A_START - 1.0 / _A_MAX)) + 1.0 / _A_MAX)
    log_g = np.log2(granularity(features))
    exponent = _A_EXP + _D_C * np.log10(compute) + _GAMMA * log_g**2 + _BETA * log_g
    return np.asarray(share**exponent)


LAW = EfficiencyLeverage()
