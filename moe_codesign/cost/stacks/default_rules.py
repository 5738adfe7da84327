"""The tiles that vLLM and SGLang choose without a tuned file."""

import numpy as np

from moe_codesign.arrays import F64
from moe_codesign.errors import UserError
from moe_codesign.formats.tuned_files import STACKS, StackTiles


def default_tiles(stack: str, dtype: str, num_tokens: F64, local_experts: F64) -> StackTiles:
    """The rule that runs without a tuned file (vLLM 0.33.0, SGLang 0.5.23, CUDA).

    Args:
        stack: ``vllm`` or ``sglang``.
        dtype: of the layer.
        num_tokens: [rows] tokens of the batch. local_experts: [rows] experts of the rank.

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
            np.where(m // local_experts > 128, 16.0, 1.0),
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
    raise UserError("stack", value=stack, fix="use ours, " + ", ".join(STACKS))
