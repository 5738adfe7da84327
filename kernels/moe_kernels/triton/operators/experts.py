"""The expert half of the layer, and the whole layer, as operators; training and inference are different ones."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch

from moe_kernels.triton import layer
from moe_kernels.triton.launch import Weights, dtype_name
from moe_kernels.triton.layer import Expert, check_routing, check_shapes
from moe_kernels.triton.operators.choose_tiles import choose_tiles
from moe_kernels.triton.operators.packing import PackedWeights, pack_tiles, pack_weights, unpack_tiles, unpack_weights
from moe_kernels.triton.operators.route import choose_experts
from moe_kernels.triton.quantize import QuantizedWeights
from moe_kernels.triton.router import Router
from moe_kernels.triton.tiles import Tiles


def _tiles_or_default(
    packed: Sequence[int], x: torch.Tensor, w_up: Weights, w_down: Weights, topk_ids: torch.Tensor, expert: Expert
) -> Tiles:
    """The tiles that were given, else those that the call chooses."""
    up, down = unpack_tiles(packed) or choose_tiles(x, w_up, w_down, topk_ids, expert)
    return up, down


# An operator's schema is its function's signature: weights and settings come in parts, and are put together first.
@torch.library.custom_op("moe_kernels::experts", mutates_args=())
def _experts(
    x: torch.Tensor,
    w_up: torch.Tensor,
    w_down: torch.Tensor,
    topk_weights: torch.Tensor,
    topk_ids: torch.Tensor,
    b_up: torch.Tensor | None,
    b_down: torch.Tensor | None,
    up_scale: torch.Tensor | None,
    down_scale: torch.Tensor | None,
    up_activation_scale: torch.Tensor | None,
    down_activation_scale: torch.Tensor | None,
    dtype: str,
    groups: list[int],
    activation: str,
    alpha: float,
    limit: float,
    first_expert: int,
    ranks: int,
    deterministic: bool,
    choices_at_once: int | None,
    tiles: list[int],
) -> torch.Tensor:
    up = unpack_weights(PackedWeights(w_up, up_scale, up_activation_scale, groups[0]), dtype)
    down = unpack_weights(PackedWeights(w_down, down_scale, down_activation_scale, groups[1]), dtype)
    expert = Expert(
        activation=activation, alpha=alpha, limit=limit, first_expert=first_expert, ranks=ranks,
        deterministic=deterministic, choices_at_once=choices_at_once,
    )  # fmt: skip
    pair = _tiles_or_default(tiles, x, up, down, topk_ids, expert)
    return layer.experts_forward(x, up, down, topk_weights, topk_ids, expert, pair, b_up, b_down)


@_experts.register_fake
def _(x: torch.Tensor, *_rest: Any) -> torch.Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("moe_kernels::experts_train", mutates_args=())
def _experts_train(
    x: torch.Tensor,
    w_up: torch.Tensor,
    w_down: torch.Tensor,
    topk_weights: torch.Tensor,
    topk_ids: torch.Tensor,
    b_up: torch.Tensor | None,
    b_down: torch.Tensor | None,
    activation: str,
    alpha: float,
    limit: float,
    first_expert: int,
    ranks: int,
    tiles: list[int],
) -> tuple[torch.Tensor, torch.Tensor]:
    expert = Expert(activation=activation, alpha=alpha, limit=limit, first_expert=first_expert, ranks=ranks)
    up, down = _tiles_or_default(tiles, x, w_up, w_down, topk_ids, expert)
    # The backward pass needs the product of GEMM 1 in one piece.
    pair = (dataclasses.replace(up, split_k=1), down)
    return layer.experts_train(x, w_up, w_down, topk_weights, topk_ids, expert, pair, b_up, b_down)


@_experts_train.register_fake
def _(x: torch.Tensor, w_up: torch.Tensor, _down: Any, _weights: Any, topk_ids: torch.Tensor, *_rest: Any) -> Any:
    return torch.empty_like(x), x.new_empty((topk_ids.numel(), w_up.shape[1]))


@torch.library.custom_op("moe_kernels::experts_backward", mutates_args=())
def _experts_backward(
    d_out: torch.Tensor,
    x: torch.Tensor,
    w_up: torch.Tensor,
    w_down: torch.Tensor,
    topk_weights: torch.Tensor,
    topk_ids: torch.Tensor,
    product: torch.Tensor,
    b_down: torch.Tensor | None,
    activation: str,
    alpha: float,
    limit: float,
    first_expert: int,
    wanted: list[bool],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    expert = Expert(activation=activation, alpha=alpha, limit=limit, first_expert=first_expert)
    return layer.experts_backward(
        d_out.contiguous(),
        x,
        w_up,
        w_down,
        topk_weights,
        topk_ids,
        product,
        expert,
        b_down,
        (wanted[0], wanted[1], wanted[2]),
    )


@_experts_backward.register_fake
def _(_d: Any, x: Any, w_up: Any, w_down: Any, topk_weights: Any, *rest: Any) -> Any:
    wanted = rest[-1]
    # Outputs of an operator may not share memory: each empty one is a tensor of its own.
    return (
        torch.empty_like(x),
        torch.empty_like(w_up) if wanted[0] else x.new_empty(0),
        torch.empty_like(w_down) if wanted[1] else x.new_empty(0),
        torch.empty_like(topk_weights),
        w_up.new_empty(w_up.shape[:2]) if wanted[2] else x.new_empty(0),
        w_down.new_empty(w_down.shape[:2]) if wanted[2] else x.new_empty(0),
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
    x, w_up, w_down, topk_weights, topk_ids, _, b_down, *numbers = inputs
    ctx.save_for_backward(x, w_up, w_down, topk_weights, topk_ids, output[1], b_down)
    ctx.numbers = numbers[:4]


def _backward(ctx: Any, d_out: torch.Tensor, _d_product: torch.Tensor) -> tuple[Any, ...]:
    *tensors, b_down = ctx.saved_tensors
    needs = ctx.needs_input_grad
    wanted = [needs[1], needs[2], needs[5] or needs[6]]
    d_x, d_up, d_down, d_weights, d_b_up, d_b_down = torch.ops.moe_kernels.experts_backward(
        d_out, *tensors, b_down, *ctx.numbers, wanted
    )
    weights = (d_up if wanted[0] else None, d_down if wanted[1] else None)
    biases = (d_b_up, d_b_down) if wanted[2] else (None, None)
    return d_x, *weights, d_weights, None, *biases, *(None,) * 6


_experts_train.register_autograd(_backward, setup_context=_save)


def experts(
    x: torch.Tensor,
    w_gate_up: Weights,
    w_down: Weights,
    topk_weights: torch.Tensor,
    topk_ids: torch.Tensor,
    *,
    b_gate_up: torch.Tensor | None = None,
    b_down: torch.Tensor | None = None,
    expert: Expert | None = None,
    tiles: Tiles | None = None,
) -> torch.Tensor:
    """The layer after routing: both grouped GEMMs, the activation between them, and the weighted sum over the top k.

    Args:
        x: bfloat16 or float16 [T, H].
        w_gate_up: [E, 2 I, H], gate rows first; [E, I, H] if the activation is not gated. x's type, or quantised.
        w_down: [E, H, I].
        topk_weights: float32 [T, k], the weight of each choice.
        topk_ids: int [T, k], the expert of each choice.
        b_gate_up, b_down: biases [E, 2 I] and [E, H]; both or neither.
        expert: activation, first expert of this rank, order of the sum; by default SwiGLU.
        tiles: tiles of the two GEMMs; by default those of the tuned table (:func:`moe_kernels.triton.use_tuned`), else
            those of the default rule.

    Returns:
        [T, H] in the type of x. Differentiable in x, both weights, the biases and topk_weights if nothing is quantised.

    Raises:
        ValueError: shapes or types do not fit, a tile cannot run this problem here, or scales of ``mxfp4`` lie where
            x's type has no numbers (:meth:`moe_kernels.triton.QuantizedWeights.inexact`, looked at in the first call).
    """
    expert = expert or Expert()
    if (b_gate_up is None) != (b_down is None):
        raise ValueError("give both biases or neither")
    x = x.contiguous()
    check_shapes(x, w_gate_up, w_down, expert.matrices, b_gate_up, b_down)
    check_routing(x, topk_weights, topk_ids)
    topk_weights = topk_weights.contiguous()
    dtype = dtype_name(w_gate_up)
    if dtype_name(w_down) != dtype:
        raise ValueError(f"w_gate_up is {dtype} and w_down is {dtype_name(w_down)}; use one type for both")
    if not torch.compiler.is_compiling():  # what a graph is traced with has no values to look at
        for weights in (w_gate_up, w_down):
            if isinstance(weights, QuantizedWeights) and (reason := weights.inexact(x.dtype)):
                raise ValueError(reason)
    settings: dict[str, Any] = {
        "topk_weights": topk_weights,
        "topk_ids": topk_ids,
        "b_up": b_gate_up,
        "b_down": b_down,
        "activation": expert.activation,
        "alpha": expert.alpha,
        "limit": expert.limit,
        "first_expert": expert.first_expert,
        "ranks": expert.ranks,
        "tiles": pack_tiles(tiles or ()),
    }
    up, down = pack_weights(w_gate_up), pack_weights(w_down)
    quantised = up.scale is not None
    leaves = [x, topk_weights, b_gate_up, b_down, *(() if quantised else (up.values, down.values))]
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in leaves):
        if quantised:
            raise ValueError(f"{dtype} weights have no gradients; call under torch.no_grad(), or detach the inputs")
        return torch.ops.moe_kernels.experts_train(x=x, w_up=up.values, w_down=down.values, **settings)[0]
    return torch.ops.moe_kernels.experts(
        x=x,
        w_up=up.values,
        w_down=down.values,
        up_scale=up.scale,
        down_scale=down.scale,
        up_activation_scale=up.activation_scale,
        down_activation_scale=down.activation_scale,
        dtype=dtype,
        groups=[up.group, down.group],
        deterministic=expert.deterministic,
        choices_at_once=expert.choices_at_once,
        **settings,
    )


def fused_moe(
    x: torch.Tensor,
    router_logits: torch.Tensor,
    w_gate_up: Weights,
    w_down: Weights,
    *,
    router: Router,
    router_bias: torch.Tensor | None = None,
    b_gate_up: torch.Tensor | None = None,
    b_down: torch.Tensor | None = None,
    expert: Expert | None = None,
    tiles: Tiles | None = None,
) -> torch.Tensor:
    """A mixture-of-experts layer, from router logits to [T, H].

    Args:
        x: bfloat16 or float16 [T, H].
        router_logits: [T, experts], those of all ranks.
        w_gate_up, w_down, b_gate_up, b_down, expert, tiles: as in :func:`experts`.
        router: how experts are chosen.
        router_bias: [experts], added to the scores when experts are chosen, but not to their weights (DeepSeek-V3).

    Raises:
        ValueError: as in :func:`experts`, or the router does not fit the number of experts, or there are not as many
            as the weights of all ranks have.
    """
    expert, x = expert or Expert(), x.contiguous()
    check_shapes(x, w_gate_up, w_down, expert.matrices, b_gate_up, b_down)
    if router_logits.shape != (x.shape[0], w_down.shape[0] * expert.ranks):
        raise ValueError(
            f"router_logits {tuple(router_logits.shape)} should be {(x.shape[0], w_down.shape[0] * expert.ranks)}, for "
            f"{w_down.shape[0]} experts on each of {expert.ranks} ranks; Expert(first_expert=, ranks=) tells which"
        )
    router.check(router_logits.shape[1])
    topk_weights, topk_ids = choose_experts(router_logits, router, router_bias)
    return experts(
        x, w_gate_up, w_down, topk_weights, topk_ids, b_gate_up=b_gate_up, b_down=b_down, expert=expert, tiles=tiles,
    )  # fmt: skip
