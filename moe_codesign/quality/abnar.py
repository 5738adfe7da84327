"""Parameters and FLOPs, Abnar et al., arXiv 2501.12370, equation 6 and table 3.

    L = a / N^alpha + b / D^beta + c / (1 - S)^lambda + d / ((1 - S)^delta N^gamma) + e

with N parameters, D training tokens and the sparsity S = (E - k) / E. The paper reports R2 = 99 % where it was fitted
and 68 % on the sparsity that it held out (0.98). It knows no width of an expert.
"""

import numpy as np

from moe_codesign.arrays import F64
from moe_codesign.quality.features import Features
from moe_codesign.quality.law import Evidence, Range, SizeLaw

_A, _ALPHA, _B, _BETA, _C, _LAMBDA = 16612.5, 0.5962, 5455.67, 0.3954, 0.4598, -0.1666
_D, _DELTA, _GAMMA, _E = 17.26, 0.1603, 0.1595, 0.94
_SPARSITY = Range("sparsity S", 0.0, 0.98)


class Abnar(SizeLaw):
    """The law; see :class:`moe_codesign.quality.law.Law`."""

    name = "abnar"
    paper = "Abnar et al., arXiv 2501.12370"
    evidence: Evidence = "transcripts"

    def covered(self, features: Features) -> list[tuple[Range, F64]]:
        return [(_SPARSITY, 1.0 - features.active / features.experts)]

    def loss(self, features: Features) -> F64:
        active = features.active / features.experts
        return np.asarray(
            _A / features.total_params**_ALPHA
            + _B / features.tokens**_BETA
            + _C / active**_LAMBDA
            + _D / (active**_DELTA * features.total_params**_GAMMA)
            + _E
        )


LAW = Abnar()
