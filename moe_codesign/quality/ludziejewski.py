"""Joint laws of mixtures and dense models, Ludziejewski et al., arXiv 2502.05172, table 3.

    L = a Ehat^delta Na^(alpha + gamma ln Ehat) + b Ehat^omega D^(beta + zeta ln Ehat) + c
    1 / Ehat = 1 / (E - 1 + (1 / Es - 1 / Em)^-1) + 1 / Em

with Na active parameters, D training tokens and E experts, of which a token reaches one of a dense layer's width.
"""

import numpy as np

from moe_codesign.arrays import F64
from moe_codesign.quality.features import Features
from moe_codesign.quality.law import Evidence, Range, SizeLaw

_A, _ALPHA, _DELTA, _GAMMA = 35.91, -0.1889, -0.2285, 0.0098
_B, _BETA, _OMEGA, _ZETA = 35.98, -0.1775, 0.5529, -0.0259
_C, _E_START, _E_MAX = 1.3637, 2.0732, 290.4521


class Ludziejewski(SizeLaw):
    """The law; see :class:`moe_codesign.quality.law.Law`."""

    name = "ludziejewski"
    paper = "Ludziejewski et al., arXiv 2502.05172"
    evidence: Evidence = "paper"

    def covered(self, features: Features) -> list[tuple[Range, F64]]:
        return [
            (Range("active parameters Na", 1e6, 2.7e9, kind="size"), features.active_params),
            (Range("active experts", 1.0, 1.0, kind="condition"), features.active),
            (Range("experts", 1.0, 32.0), features.experts),
            (Range("granularity G = 4 H / I", 0.9, 1.5, kind="condition"), features.dense_widths),
        ]

    def loss(self, features: Features) -> F64:
        log_e = np.log(effective_experts(features.experts, _E_START, _E_MAX))
        of_size = _A * np.exp(_DELTA * log_e) * features.active_params ** (_ALPHA + _GAMMA * log_e)
        of_data = _B * np.exp(_OMEGA * log_e) * features.tokens ** (_BETA + _ZETA * log_e)
        return np.asarray(of_size + of_data + _C)


def effective_experts(experts: F64, start: float, most: float) -> F64:
    """Ehat: experts as they count, which neither few nor many do in full (Clark et al., arXiv 2202.01169, equation
    1)."""
    return np.asarray(1.0 / (1.0 / (experts - 1.0 + 1.0 / (1.0 / start - 1.0 / most)) + 1.0 / most))


LAW = Ludziejewski()
