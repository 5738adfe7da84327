"""Routing as an operator: which experts each token visits and with what weight, differentiable in the logits."""

from typing import Any

import torch

from moe_kernels.triton.router import Router, route


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


def choose_experts(
    logits: torch.Tensor, router: Router, bias: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """As :func:`moe_kernels.triton.router.route`, traced by ``torch.compile`` and differentiable in ``logits``."""
    return torch.ops.moe_kernels.route(
        logits, bias, router.top_k, router.scoring, router.renormalize, router.scaling, router.groups,
        router.top_groups, router.group_score,
    )  # fmt: skip
