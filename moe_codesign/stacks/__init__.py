"""Serving stacks whose fused MoE layers are modelled: one file for each, and the list of them."""

import importlib
from collections.abc import Callable

from moe_codesign.arrays import F64
from moe_codesign.errors import UserError
from moe_codesign.stacks.tiles import StackTiles

STACKS = {
    "vllm": "moe_codesign.stacks.vllm",
    "sglang": "moe_codesign.stacks.sglang",
}
"""The module of each stack, which defines ``default_tiles``, by the name that the column ``stack`` gives it."""

DefaultRule = Callable[[str, F64, F64], StackTiles]
"""From a data type, the tokens of each row's batch [rows] and the experts of its rank [rows] to the tile that the stack
launches without a tuned file."""


def default_rule(stack: str) -> DefaultRule:
    """The rule of that stack. Raises UserError if STACKS has no such name."""
    if stack not in STACKS:
        raise UserError("stack", value=stack, fix="use ours, " + ", ".join(STACKS))
    rule: DefaultRule = importlib.import_module(STACKS[stack]).default_tiles
    return rule


__all__ = ["STACKS", "DefaultRule", "StackTiles", "default_rule"]
