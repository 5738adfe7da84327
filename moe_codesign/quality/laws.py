"""The list of published laws, by the name that space files give them."""

import functools
import importlib

from moe_codesign.quality.law import Law

LAWS = (
    "efficiency_leverage",
    "krajewski",
    "ludziejewski",
    "abnar",
    "zhao",
    "clark",
)
"""A law's name is that of its module, which defines ``LAW``."""
DEFAULT_LAW = "efficiency_leverage"


@functools.cache
def law_named(name: str) -> Law:
    """The published law of that name. Raises KeyError if LAWS has no such name."""
    if name not in LAWS:
        raise KeyError(name)
    law: Law = importlib.import_module(f"moe_codesign.quality.{name}").LAW
    return law


def published_laws() -> list[Law]:
    """Every published law."""
    return [law_named(name) for name in LAWS]
