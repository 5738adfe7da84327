"""Fine-grained mixtures, Krajewski et al., arXiv 2402.07871, equation 9 and table 1.

    L = c + (g / G^gamma + a) / N^alpha + b / D^beta

with the granularity G = 4 H / I, N parameters and D training tokens. All runs hold the experts that a token reaches at
G, so that its active width is that of a dense layer, and the experts at 64 G: the law knows no other number of either.
"""

import numpy as np

from moe_codesign.arrays import F64
from moe_codesign.quality.features import Features
from moe_codesign.quality.law import Evidence, Range, SizeLaw

_G, _GAMMA, _A, _ALPHA, _B, _BETA, _C = 2.1, 0.58, 18.1, 0.115, 30.8, 0.147, 0.47
_PARAMS = Range("parameters N", 129e6, 3.7e9, kind="size")
_TOKENS = Range("training tokens D", 16e9, 130e9, kind="size")
_GRANULARITY = Range("granularity G = 4 H / I", 1.0, 16.0)
# "Held at" allows for a tenth, as widths and counts are rounded.
_DENSE_WIDTH = Range("active experts over G", 0.9, 1.1, kind="condition")
_EXPANSION = Range("experts over active experts", 58.0, 70.0, kind="condition")


class Krajewski(SizeLaw):
    """The law; see :class:`moe_codesign.quality.law.Law`."""

    name = "krajewski"
    paper = "Krajewski et al., arXiv 2402.07871"
    evidence: Evidence = "paper"

    def covered(self, features: Features) -> list[tuple[Range, F64]]:
        return [
            (_PARAMS, features.total_params),
            (_TOKENS, features.tokens),
            (_GRANULARITY, features.dense_widths),
            (_DENSE_WIDTH, features.active / features.dense_widths),
            (_EXPANSION, features.experts / features.active),
        ]

    def loss(self, features: Features) -> F64:
        of_size = (_G / features.dense_widths**_GAMMA + _A) / features.total_params**_ALPHA
        return np.asarray(_C + of_size + _B / features.tokens**_BETA)


LAW = Krajewski()
