"""What a shape costs in quality: one file for each scaling law, and the judge that compares shapes by them."""

from moe_codesign.quality.ablations import Ablation, Ablations
from moe_codesign.quality.beside import Beside, beside
from moe_codesign.quality.judge import EQUALS, Equal, Judge, Qualities, Quality
from moe_codesign.quality.law import Law
from moe_codesign.quality.laws import DEFAULT_LAW, LAWS, law_named, published_laws

__all__ = [
    "DEFAULT_LAW",
    "EQUALS",
    "LAWS",
    "Ablation",
    "Ablations",
    "Beside",
    "Equal",
    "Judge",
    "Law",
    "Qualities",
    "Quality",
    "beside",
    "law_named",
    "published_laws",
]
