"""A comprehensive law, Zhao et al., arXiv 2509.23678.

    L = (e G + f / G + m S^2 + n S) (1 / N^alpha + k / Na^alpha + h Na / N) + a / N^alpha + b / D^beta + c / Na^alpha +
    eps

with G experts that a token reaches, shared ones among them, S the shared ones' part of these, N and Na total and active
parameters and D training tokens. Its optima, G = 6.78 and S = 0.315, are those that the paper reports. It knows no
width of an expert beside Na.
"""

import numpy as np

from moe_codesign.arrays import F64
from moe_codesign.quality.features import Features
from moe_codesign.quality.law import Evidence, Range, SizeLaw

_E, _F, _M, _N, _K, _H = 0.1577, 7.2446, 5.1395, -3.2363, 0.0013, 0.0450
_A, _ALPHA, _B, _BETA, _C, _EPS = 38.051, 0.2383, 27129.05, 0.4694, 31.096, 1.8182


class Zhao(SizeLaw):
    """The law; see :class:`moe_codesign.quality.law.Law`."""

    name = "zhao"
    paper = "Zhao et al., arXiv 2509.23678"
    evidence: Evidence = "transcripts"

    def covered(self, features: Features) -> list[tuple[Range, F64]]:
        """None: the transcriptions give its coefficients and not its range."""
        return []

    def loss(self, features: Features) -> F64:
        reached = features.active + features.shared
        part = features.shared / reached
        of_design = _E * reached + _F / reached + _M * part**2 + _N * part
        total, own = features.total_params, features.active_params
        return np.asarray(
            of_design * (total**-_ALPHA + _K * own**-_ALPHA + _H * own / total)
            + _A * total**-_ALPHA
            + _B * features.tokens**-_BETA
            + _C * own**-_ALPHA
            + _EPS
        )


LAW = Zhao()
