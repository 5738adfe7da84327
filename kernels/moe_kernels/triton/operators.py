"""The layer as PyTorch operators: they trace under ``torch.compile`` and have gradients.

The registered operators (``torch.ops.moe_kernels``) take plain tensors and numbers;
the functions below are what to call.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import torch

from moe_kernels.kernel import Op
from moe_kernels.tile import TritonTile
from moe_kernels.triton import layer
from moe_kernels.triton.alignment import align_groups
from moe_kernels.triton.launch import Weights, dtype_name, launch_gemm, problem_of, target_of
from moe_kernels.triton.layer import Expert, backward_tile, check_routing, check_shapes
from moe_kernels.triton.quantize import QuantizedWeights
from moe_kernels.triton.router import Router, route
from moe_kernels.triton.support import refusal
from moe_kernels.triton.tiles import Tiles, default_tile, tuned_tiles
from moe_kernels.triton.weight_gradient import weight_gradient

_FIELDS = TritonTile.fields()


def _numbers(tiles: Tiles | None) -> list[int]:
    """Tiles as an operator takes them: plain numbers, none for those that the call shall choose."""
    return [int(getattr(tile, name)) for tile in tiles or () for name in _FIELDS]


def _tiles(numbers: Sequence[int]) -> list[TritonTile]:
    return [_tile(tuple(numbers[i : i + len(_FIELDS)])) for i in range(0, len(numbers), len(_FIELDS))]


@functools.cache
def _tile(numbers: tuple[int, ...]) -> TritonTile:
    kinds = [field.type for field in dataclasses.fields(TritonTile)]
    values = [bool(n) if kind is bool else n for n, kind in zip(numbers, kinds, strict=True)]
    return TritonTile.from_dict(dict(zip(_FIELDS, values, strict=True)))


def _pair(
    tiles: Sequence[int], x: torch.Tensor, w_up: Weights, w_down: Weights, ids: torch.Tensor, expert: Expert
) -> Tiles:
    up, down = _tiles(tiles) or choose_tiles(x, w_up, w_down, ids, expert)
    return up, down


def _weights(
    values: torch.Tensor, scale: torch.Tensor | None, activation_scale: torch.Tensor | None, dtype: str, group: int
) -> Weights:
    return values if scale is None else QuantizedWeights(values, scale, dtype, activation_scale, group)


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
    tiles: list[int],
) -> torch.Tensor:
    up = _weights(w_up, up_scale, up_activation_scale, dtype, groups[0])
    down = _weights(w_down, down_scale, down_activation_scale, dtype, groups[1])
    expert = Expert(
        activation=activation, alpha=alpha, limit=limit, first_expert=first_expert, ranks=ranks,
        deterministic=deterministic,
    )  # fmt: skip
    pair = _pair(tiles, x, up, down, topk_ids, expert)
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
    up, down = _pair(tiles, x, w_up, w_down, topk_ids, expert)
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
    # Outputs of an operator may not share memory: each empty one is its own.
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


@torch.library.custom_op("moe_kernels::route", mutates_args=())
def _route(
    logits: torch.Tensor,
    bias: torch.Tensor | None,
    top_k: int,
    scoring: str,
    renormalize: bool,
    scaling: float,
    groups: int,
    top_groups: int,
    group_score: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    router = Router(
        top_k=top_k, scoring=scoring, renormalize=renormalize, scaling=scaling, groups=groups,  # type: ignore[arg-type]
        top_groups=top_groups, group_score=group_score,  # type: ignore[arg-type]
    )  # fmt: skip
    return route(logits, router, bias)


@_route.register_fake
def _(logits: torch.Tensor, _bias: Any, top_k: int, *_rest: Any) -> Any:
    size = (logits.shape[0], top_k)
    return logits.new_empty(size, dtype=torch.float32), logits.new_empty(size, dtype=torch.int32)


def _save_route(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
    ctx.save_for_backward(inputs[0], output[1])
    ctx.scoring, ctx.renormalize, ctx.scaling = inputs[3:6]


def _route_backward(ctx: Any, d_weights: torch.Tensor, _d_ids: Any) -> tuple[Any, ...]:
    logits, ids = ctx.saved_tensors
    # The choice itself has no gradient; the weights are a smooth function of the chosen scores.
    scores = logits.float().sigmoid() if ctx.scoring == "sigmoid" else logits.float().softmax(1)
    chosen = scores.gather(1, ids.long())
    d_chosen = d_weights * ctx.scaling
    if ctx.renormalize:
        total = chosen.sum(1, keepdim=True) + 1e-20
        d_chosen = (d_chosen - (d_chosen * chosen).sum(1, keepdim=True) / total) / total
    d_scores = torch.zeros_like(scores).scatter(1, ids.long(), d_chosen)
    if ctx.scoring == "sigmoid":
        d_logits = d_scores * scores * (1 - scores)
    else:
        d_logits = scores * (d_scores - (d_scores * scores).sum(1, keepdim=True))
    return d_logits.to(logits.dtype), *(None,) * 8


_route.register_autograd(_route_backward, setup_context=_save_route)


@torch.library.custom_op("moe_kernels::grouped_gemm", mutates_args=())
def _grouped_gemm(
    rows: torch.Tensor, weights: torch.Tensor, group_sizes: torch.Tensor, tile: list[int]
) -> torch.Tensor:
    if tile:
        (one,) = _tiles(tile)
    else:
        per_group = rows.shape[0] / max(weights.shape[0], 1)
        one = default_tile(problem_of("down", weights, 1), per_group, target_of(rows.device))
    # Its rows are written once: parts of K have no place to be summed.
    one = dataclasses.replace(one, split_k=1)
    out = torch.zeros((rows.shape[0], weights.shape[1]), dtype=rows.dtype, device=rows.device)
    if rows.shape[0]:
        order = torch.arange(rows.shape[0], dtype=torch.int32, device=rows.device)
        aligned = align_groups(group_sizes, order, (one.block_m, one.block_m))
        launch_gemm(rows, weights, out, aligned, one, gather=False, epilogue="hidden")
    return out


@_grouped_gemm.register_fake
def _(rows: torch.Tensor, weights: torch.Tensor, *_rest: Any) -> torch.Tensor:
    return rows.new_empty((rows.shape[0], weights.shape[1]))


@torch.library.custom_op("moe_kernels::grouped_gemm_backward", mutates_args=())
def _grouped_gemm_backward(
    d_out: torch.Tensor, rows: torch.Tensor, weights: torch.Tensor, group_sizes: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    d_rows, tile = torch.zeros_like(rows), backward_tile(rows.dtype)
    if not rows.shape[0]:
        return d_rows, torch.zeros_like(weights)
    order = torch.arange(rows.shape[0], dtype=torch.int32, device=rows.device)
    aligned = align_groups(group_sizes, order, (tile.block_m,) * 2)
    launch_gemm(d_out, weights, d_rows, aligned, tile, gather=False, epilogue="hidden", transposed=True)
    return d_rows, weight_gradient(d_out, rows, order, aligned.start, gather_left=True)


@_grouped_gemm_backward.register_fake
def _(_d: Any, rows: torch.Tensor, weights: torch.Tensor, *_rest: Any) -> Any:
    return torch.empty_like(rows), torch.empty_like(weights)


def _save_gemm(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    ctx.save_for_backward(*inputs[:3])


def _gemm_backward(ctx: Any, d_out: torch.Tensor) -> tuple[Any, ...]:
    d_rows, d_weights = torch.ops.moe_kernels.grouped_gemm_backward(d_out.contiguous(), *ctx.saved_tensors)
    return d_rows, d_weights, None, None


_grouped_gemm.register_autograd(_gemm_backward, setup_context=_save_gemm)


def grouped_mm(
    rows: torch.Tensor, weights: torch.Tensor, group_sizes: torch.Tensor, *, tile: TritonTile | None = None
) -> torch.Tensor:
    """[M, N]: rows [M, K] in group order times each group's weights [G, N, K], differentiable in both.

    Args:
        group_sizes: int [G]; rows past their sum come out as zeros.

    Raises:
        ValueError: shapes or types that do not fit, a tile that cannot run this.
    """
    if rows.dim() != 2 or weights.dim() != 3 or rows.shape[1] != weights.shape[2] or rows.dtype != weights.dtype:
        raise ValueError(
            f"rows {tuple(rows.shape)} {rows.dtype} and weights {tuple(weights.shape)} {weights.dtype} do not fit: "
            "give [M, K] and [G, N, K] of one type"
        )
    if tuple(group_sizes.shape) != (weights.shape[0],):
        raise ValueError(f"group_sizes {tuple(group_sizes.shape)} should be {(weights.shape[0],)}")
    numbers = [int(getattr(tile, name)) for name in _FIELDS] if tile else []
    return torch.ops.moe_kernels.grouped_gemm(rows.contiguous(), weights.contiguous(), group_sizes, numbers)


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
    """The layer after routing: both grouped GEMMs, the activation between them, the weighted sum over k.

    Args:
        x: bfloat16 or float16 [T, H].
        w_gate_up: [E, 2 I, H], gate rows first; [E, I, H] if the activation is not gated. Of x's type, or quantised.
        w_down: [E, H, I].
        topk_weights: float32 [T, k]. topk_ids: int [T, k].
        b_gate_up: [E, 2 I]. b_down: [E, H]. Both or neither.
        expert: activation, first expert of this rank, order of the sum; default SwiGLU.
        tiles: of the two GEMMs; default the tuned table's (:func:`use_tuned`), else the default rule's.

    Returns:
        [T, H] in the type of x. Differentiable in x, both weights, biases and topk_weights if nothing is quantised.

    Raises:
        ValueError: shapes or types that do not fit, a tile that cannot run this problem here.
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
        raise ValueError(f"w_gate_up is {dtype} and w_down {dtype_name(w_down)}; use one type for both")
    chosen = _numbers(tiles)
    numbers = (expert.activation, expert.alpha, expert.limit, expert.first_expert, expert.ranks)
    given = [t for t in (x, topk_weights, b_gate_up, b_down) if t is not None]
    up, down = w_gate_up, w_down
    if isinstance(up, QuantizedWeights) or isinstance(down, QuantizedWeights):
        assert isinstance(up, QuantizedWeights)
        assert isinstance(down, QuantizedWeights)
        if torch.is_grad_enabled() and any(t.requires_grad for t in given):
            raise ValueError(f"{dtype} weights have no gradients; call under torch.no_grad(), or detach the inputs")
        return torch.ops.moe_kernels.experts(
            x, up.values, down.values, topk_weights, topk_ids, b_gate_up, b_down, up.scale, down.scale,
            up.activation_scale, down.activation_scale, dtype, [up.group, down.group], *numbers,
            expert.deterministic, chosen,
        )  # fmt: skip
    if torch.is_grad_enabled() and any(t.requires_grad for t in (*given, up, down)):
        return torch.ops.moe_kernels.experts_train(
            x, up, down, topk_weights, topk_ids, b_gate_up, b_down, *numbers, chosen
        )[0]
    return torch.ops.moe_kernels.experts(
        x, up, down, topk_weights, topk_ids, b_gate_up, b_down, None, None, None, None, dtype, [128, 128], *numbers,
        expert.deterministic, chosen,
    )  # fmt: skip


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
    """A mixture-of-experts layer from router logits [T, experts] to [T, H].

    Args:
        router: top_k, scoring, groups. router_bias: [experts], added for the choice alone (DeepSeek-V3).
        others: as :func:`experts`.

    Raises:
        ValueError: as :func:`experts`, or a router that does not fit the number of experts.
    """
    router.check(router_logits.shape[1])
    topk_weights, topk_ids = torch.ops.moe_kernels.route(
        router_logits, router_bias, router.top_k, router.scoring, router.renormalize, router.scaling, router.groups,
        router.top_groups, router.group_score,
    )  # fmt: skip
    return experts(
        x, w_gate_up, w_down, topk_weights, topk_ids, b_gate_up=b_gate_up, b_down=b_down, expert=expert, tiles=tiles,
    )  # fmt: skip


def choose_tiles(x: torch.Tensor, w_gate_up: Weights, w_down: Weights, topk_ids: torch.Tensor, expert: Expert) -> Tiles:
    """The tiles that :func:`experts` takes if none are given."""
    num_experts, hidden_size, width = w_down.shape
    target = target_of(x.device)
    op: Op = "gate_up" if expert.matrices == 2 else "up"
    problems = (problem_of(op, w_gate_up, expert.matrices), problem_of("down", w_down, 1))
    if x.device.type == "cuda":
        key = (dtype_name(w_gate_up), expert.activation, num_experts, hidden_size, width)
        found = tuned_tiles(torch.cuda.get_device_name(x.device), key, x.shape[0])
        # Tuned under other groups of scales, a tile may not run here.
        if found and not any(refusal(p, tile, target) for p, tile in zip(problems, found, strict=True)):
            return found
    # How many rows each expert has is known on the device alone; so all that can have rows are taken to.
    pairs = topk_ids.shape[0] * topk_ids.shape[1]
    per_expert = pairs / max(1, min(num_experts * expert.ranks, pairs))
    return default_tile(problems[0], per_expert, target), default_tile(problems[1], per_expert, target)
