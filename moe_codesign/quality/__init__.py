"""What a shape costs in quality: one file for each scaling law, and the list of them."""

import importlib

from moe_codesign.quality.law import Law, Quality

LAWS = {
    "efficiency_leverage": "moe_codesign.quality.efficiency_leverage",
}
"""The module of each law, which defines ``LAW``, by the name that space files give it."""
DEFAULT_LAW = "efficiency_leverage"


def law_named(name: str) -> Law:
    """The law of that name. Raises KeyError if LAWS has no such name."""
    law: Law = importlib.import_module(LAWS[name]).LAW
    return law


__all__ = ["DEFAULT_LAW", "LAWS", "Law", "Quality", "law_named"]
