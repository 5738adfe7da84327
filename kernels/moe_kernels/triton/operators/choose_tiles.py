"""The tiles of a call that names none: the tuned table's, else the default rule's."""

import torch

from moe_kernels.kernel import up_op
from moe_kernels.triton.device import target_of
from moe_kernels.triton.launch import Weights, dtype_name, problem_of
from moe_kernels.triton.layer import Expert
from moe_kernels.triton.support import refusal
from moe_kernels.triton.tiles import Tiles, default_tile, tuned_tiles


def choose_tiles(x: torch.Tensor, w_gate_up: Weights, w_down: Weights, topk_ids: torch.Tensor, expert: Expert) -> Tiles:
    """The tiles that :func:`moe_kernels.triton.experts` uses if none are given; arguments as there."""
    num_experts, hidden_size, width = w_down.shape
    target = target_of(x.device)
    problems = (
        problem_of(up_op(gated=expert.matrices == 2), w_gate_up, expert.matrices),
        problem_of("down", w_down, 1),
    )
    if x.device.type == "cuda":
        key = (dtype_name(w_gate_up), expert.activation, num_experts, hidden_size, width)
        num_tokens = expert.tokens_at_once(*topk_ids.shape)
        found = tuned_tiles(torch.cuda.get_device_name(x.device), key, num_tokens)
        # Tuned under other groups of scales, a tile may not run here.
        if found and not any(refusal(p, tile, target) for p, tile in zip(problems, found, strict=True)):
            return found
    # The device alone knows how many rows each expert has: every expert that can have rows is assumed to have some.
    pairs = expert.tokens_at_once(*topk_ids.shape) * topk_ids.shape[1]
    per_expert = pairs / max(1, min(num_experts * expert.ranks, pairs))
    return default_tile(problems[0], per_expert, target), default_tile(problems[1], per_expert, target)
