"""Routed language models, Clark et al., arXiv 2202.01169, equation 1 and table 3, for the S-BASE router.

    log10 L = a log10 N + b log10 Ehat + c log10 N log10 Ehat + d

with N parameters of the dense model in which some layers become E experts of the same width, one of which a token
reaches: so N is counted as active parameters here. All runs are of 130e9 tokens, and the law knows no other number.
"""

import numpy as np

from moe_codesign.arrays import F64
from moe_codesign.quality.features import Features
from moe_codesign.quality.law import Evidence, Range, SizeLaw
from moe_codesign.quality.ludziejewski import effective_experts

_A, _B, _C, _D, _E_START, _E_MAX = -0.082, -0.108, 0.009, 1.104, 1.847, 314.478


class Clark(SizeLaw):
    """The law; see :class:`moe_codesign.quality.law.Law`."""

    name = "clark"
    paper = "Clark et al., arXiv 2202.01169"
    evidence: Evidence = "transcripts"

    def covered(self, features: Features) -> list[tuple[Range, F64]]:
        return [
            (Range("parameters N of the dense model", 15e6, 1.3e9, kind="size"), features.active_params),
            (Range("training tokens D", 130e9, 130e9, kind="size"), features.tokens),
            (Range("active experts", 1.0, 1.0, kind="condition"), features.active),
            (Range("experts", 1.0, 512.0), features.experts),
            (Range("granularity G = 4 H / I", 0.9, 1.5, kind="condition"), features.dense_widths),
        ]

    def loss(self, features: Features) -> F64:
        log_n = np.log10(features.active_params)
        log_e = np.log10(effective_experts(features.experts, _E_START, _E_MAX))
        return np.asarray(10 ** (_A * log_n + _B * log_e + _C * log_n * log_e + _D))


LAW = Clark()
