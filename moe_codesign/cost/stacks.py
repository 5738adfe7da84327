"""What a serving stack launches where nobody tuned it: the default tile rules of vLLM and SGLang, over columns."""

from dataclasses import dataclass

import numpy as np

from moe_codesign.cost.table import F64
from moe_codesign.errors import UserError

STACKS = ("vllm", "sglang")
BLOCK_M = (16, 32, 64, 128)
"""Heights that the rules choose from."""


@dataclass(frozen=True)
class StackTiles:
    """Tile of each row, both GEMMs the same."""

    block_m: F64
    block_n: F64
    block_k: F64
    group_m: F64
    num_warps: F64
    num_stages: F64


def default_tiles(stack: str, dtype: str, num_tokens: F64, experts: F64, local_experts: F64) -> StackTiles:
    """The rule that runs without a tuned file (vLLM 0.33.0, SGLang 0.5.23, CUDA).

    Args:
        stack: ``vllm`` or ``sglang``.
        dtype: of the layer.
        num_tokens: [rows] tokens of the batch. experts, local_experts: [rows] of the model, of the rank.

    Raises:
        UserError: a stack that is not known.
    """
    m, block = num_tokens, dtype == "fp8_block"
    one = np.ones_like(m)

    def pick(*cases: tuple[float, float], last: float) -> F64:
        """The value of the first case whose number of tokens is not exceeded."""
        found: F64 = np.select([m <= limit for limit, _ in cases], [value for _, value in cases], default=last)
        return found

    if stack == "vllm" and block:
        return StackTiles(
            pick((64, 16), last=64),
            pick((8, 64), last=128),
            128 * one,
            pick((16, 1), last=32),
            4 * one,
            pick((4, 4), last=3),
        )
    if stack == "vllm":
        return StackTiles(
            pick((32, 16), (96, 32), (512, 64), last=128),
            pick((64, 64), last=128),
            128 * one if dtype == "fp8" else pick((64, 128), last=64),
            np.where(m // experts > 128, 16.0, 1.0),
            pick((128, 4), last=8),
            pick((32, 4), last=3),
        )
    if stack == "sglang" and block:
        return StackTiles(64 * one, 128 * one, 128 * one, 32 * one, 4 * one, 3 * one)
    if stack == "sglang":
        few = m <= local_experts
        return StackTiles(
            np.where(few, 16.0, 64.0),
            np.where(few, 32.0, 64.0),
            np.where(few, 64.0, 32.0),
            np.where(few, 1.0, 8.0),
            4 * one,
            3 * one,
        )
    raise UserError("stack", value=stack, mend="use native, " + ", ".join(STACKS))
