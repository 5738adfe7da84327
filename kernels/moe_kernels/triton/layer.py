"""The expert half of the layer as plain functions over aligned rows: forward, training forward and backward."""

from dataclasses import dataclass, replace
from typing import Any

import torch

from moe_kernels.tile import TritonTile
from moe_kernels.triton.activation import ACTIVATIONS, GATED, SWIGLU_OAI_ALPHA, SWIGLU_OAI_LIMIT
from moe_kernels.triton.alignment import Alignment, align
from moe_kernels.triton.launch import Weights, launch_gemm
from moe_kernels.triton.quantize import QuantizedWeights, quantize_rows
from moe_kernels.triton.rows import activate_rows, activate_rows_backward, combine
from moe_kernels.triton.weight_gradient import weight_gradient

Tiles = tuple[TritonTile, TritonTile]

_BACKWARD_TILE = TritonTile(block_m=64, block_n=128, block_k=64, num_warps=8, num_stages=3)


def backward_tile(dtype: torch.dtype) -> TritonTile:
    """The tile of the data gradients. They read weights along N, so it has neither descriptors nor swapped operands."""
    # Wide types take half the depth and fewer stages: CDNA 3 has 64 KB of shared memory.
    return replace(_BACKWARD_TILE, block_k=32, num_stages=2) if dtype.itemsize > 2 else _BACKWARD_TILE


@dataclass(frozen=True, kw_only=True)
class Expert:
    """What an expert computes besides its weights, and which experts this rank has.

    Args:
        activation: a name of :mod:`moe_kernels.triton.activation`.
        alpha, limit: parameters of ``swiglu_oai``.
        first_expert: the first expert of this rank. A token's choices of experts on other ranks count as zero.
        ranks: how many ranks share the experts equally. Default tiles expect this rank to get its share of the choices.
        deterministic: sum a token's experts in a fixed order; if False, by float32 atomic adds. Training always sums in
            a fixed order.
        choices_at_once: how many choices (tokens times top_k) are computed at a time; None for all. The host does not
            know how many of them fall on this rank, so there is memory for each: about 2 (I + H) bytes. Many tokens
            therefore need much memory, under expert parallelism ``ranks`` times what is used. With this they are
            computed part by part, and each part reads the weights again. Training computes all at once, since it keeps
            their rows.

    Raises:
        ValueError: the activation is unknown, or a number is out of range.
    """

    activation: str = "swiglu"
    alpha: float = SWIGLU_OAI_ALPHA
    limit: float = SWIGLU_OAI_LIMIT
    first_expert: int = 0
    ranks: int = 1
    deterministic: bool = True
    choices_at_once: int | None = None

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation = {self.activation!r}; use one of {', '.join(ACTIVATIONS)}")
        if self.first_expert < 0 or self.ranks < 1:
            raise ValueError(f"first_expert = {self.first_expert}, ranks = {self.ranks}; give 0 or more, and 1 or more")
        if self.choices_at_once is not None and self.choices_at_once < 1:
            raise ValueError(f"choices_at_once = {self.choices_at_once}; give 1 or more, or None")

    def tokens_at_once(self, num_tokens: int, top_k: int) -> int:
        """How many tokens are computed at a time: all, unless ``choices_at_once`` says otherwise."""
        if self.choices_at_once is None:
            return num_tokens
        return min(num_tokens, max(1, self.choices_at_once // max(1, top_k)))

    @property
    def matrices(self) -> int:
        """Matrices of GEMM 1: 2 (gate and up) if the activation is gated, else 1."""
        return 2 if self.activation in GATED else 1


def check_shapes(
    x: torch.Tensor,
    w_up: Weights,
    w_down: Weights,
    matrices: int,
    b_up: torch.Tensor | None = None,
    b_down: torch.Tensor | None = None,
) -> None:
    """Raise ValueError if x [T, H], w_up [E, matrices * I, H], w_down [E, H, I] and the biases do not fit together."""
    if x.dim() != 2:
        raise ValueError(f"x {tuple(x.shape)} should be [tokens, hidden size]; flatten its first dimensions")
    for name, weights in (("w_gate_up", w_up), ("w_down", w_down)):
        if len(weights.shape) != 3:
            raise ValueError(f"{name} {tuple(weights.shape)} should have three dimensions, experts first")
    hidden_size = x.shape[1]
    experts, out_size, width = w_down.shape
    if tuple(w_up.shape) != (experts, matrices * width, hidden_size) or out_size != hidden_size:
        raise ValueError(
            f"w_gate_up {tuple(w_up.shape)} and w_down {tuple(w_down.shape)} do not fit x {tuple(x.shape)}: "
            f"give [E, {matrices} I, {hidden_size}] and [E, {hidden_size}, I]"
        )
    for name, bias, size in (("b_gate_up", b_up, matrices * width), ("b_down", b_down, hidden_size)):
        if bias is not None and tuple(bias.shape) != (experts, size):
            raise ValueError(f"{name} {tuple(bias.shape)} should be {(experts, size)}")
    for name, weights, count in (("w_gate_up", w_up, matrices), ("w_down", w_down, 1)):
        if isinstance(weights, QuantizedWeights):
            if weights.dtype in ("fp8", "fp8_block") and weights.scale.shape[1] != count:
                raise ValueError(
                    f"{name} has scales of {weights.scale.shape[1]} matrices, the layer has {count} there; "
                    f"quantise with matrices={count}"
                )
        elif weights.dtype != x.dtype:
            raise ValueError(f"{name} is {weights.dtype} and x is {x.dtype}; convert one")
    for name, tensor in (("w_gate_up", w_up), ("w_down", w_down), ("b_gate_up", b_up), ("b_down", b_down)):
        if tensor is not None and tensor.device != x.device:
            raise ValueError(f"{name} is on {tensor.device} and x is on {x.device}; move one")
    plain = [t for t in (x, w_up, w_down, b_up, b_down) if isinstance(t, torch.Tensor)]
    if not all(t.is_contiguous() for t in plain):
        raise ValueError("x, weights and biases must be contiguous; call .contiguous() on them once")


def check_routing(x: torch.Tensor, topk_weights: torch.Tensor, topk_ids: torch.Tensor) -> None:
    """Raise ValueError if topk_weights and topk_ids are not both [T, k] for the T tokens of x."""
    if topk_ids.dim() != 2 or topk_ids.shape != topk_weights.shape or topk_ids.shape[0] != x.shape[0]:
        raise ValueError(
            f"topk_weights {tuple(topk_weights.shape)} and topk_ids {tuple(topk_ids.shape)} should both be "
            f"[{x.shape[0]}, k]"
        )
    if topk_ids.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"topk_ids is {topk_ids.dtype}; use int32 or int64")
    for name, tensor in (("topk_weights", topk_weights), ("topk_ids", topk_ids)):
        if tensor.device != x.device:
            raise ValueError(f"{name} is on {tensor.device} and x is on {x.device}; move one")


def gemm_up(
    x: torch.Tensor, w_up: Weights, rows: Alignment, expert: Expert, tile: TritonTile, bias: torch.Tensor | None
) -> torch.Tensor:
    """GEMM 1 and the activation: hidden rows [P, I] in expert order."""
    a, a_scale = quantize_rows(x, w_up) if isinstance(w_up, QuantizedWeights) else (x, None)
    num_rows, width = rows.token.numel(), w_up.shape[1] // expert.matrices
    common: dict[str, Any] = {"a_scale": a_scale, "bias": bias, "matrices": expert.matrices, "gather": True}
    if tile.split_k == 1:
        hidden = torch.empty((num_rows, width), dtype=x.dtype, device=x.device)
        launch_gemm(
            a, w_up, hidden, rows, tile, epilogue="hidden",
            activation=expert.activation, alpha=expert.alpha, limit=expert.limit, **common,
        )  # fmt: skip
        return hidden
    # The activation is not linear: parts of K have to be summed before it.
    parts = torch.empty((tile.split_k, num_rows, expert.matrices * width), dtype=torch.float32, device=x.device)
    launch_gemm(a, w_up, parts, rows, tile, epilogue="partial", **common)
    return activate_rows(parts, rows.start[-1:], expert.activation, expert.alpha, expert.limit, x.dtype)


def experts_forward(
    x: torch.Tensor,
    w_up: Weights,
    w_down: Weights,
    topk_weights: torch.Tensor,
    topk_ids: torch.Tensor,
    expert: Expert,
    tiles: Tiles,
    b_up: torch.Tensor | None = None,
    b_down: torch.Tensor | None = None,
) -> torch.Tensor:
    """The layer after routing: [T, H] in the type of x; arguments as :func:`moe_kernels.triton.experts` has them."""
    at_once = expert.tokens_at_once(*topk_ids.shape)
    if at_once < x.shape[0]:
        out = torch.empty_like(x)
        for part, tokens, weights, ids in zip(
            *(t.split(at_once) for t in (out, x, topk_weights, topk_ids)), strict=True
        ):
            part.copy_(experts_forward(tokens, w_up, w_down, weights, ids, expert, tiles, b_up, b_down))
        return out
    rows = align(topk_ids, w_down.shape[0], (tiles[0].block_m, tiles[1].block_m), first_expert=expert.first_expert)
    if rows.token.numel() == 0:
        return torch.zeros_like(x)
    hidden = gemm_up(x, w_up, rows, expert, tiles[0], b_up)
    return gemm_down(hidden, w_down, rows, topk_weights, topk_ids, expert, tiles[1], b_down)


def gemm_down(
    hidden: torch.Tensor,
    w_down: Weights,
    rows: Alignment,
    topk_weights: torch.Tensor,
    topk_ids: torch.Tensor,
    expert: Expert,
    tile: TritonTile,
    bias: torch.Tensor | None,
) -> torch.Tensor:
    """GEMM 2, the router's weights and the sum over a token's experts: [T, H] from hidden rows."""
    experts, hidden_size, _ = w_down.shape
    a, a_scale = hidden, None
    if isinstance(w_down, QuantizedWeights):
        a, a_scale = quantize_rows(hidden, w_down, rows.start[-1:])
    common: dict[str, Any] = {
        "a_scale": a_scale,
        "bias": bias,
        "row_weight": topk_weights,
        "gather": False,
    }
    if not expert.deterministic:
        out = torch.zeros((topk_ids.shape[0], hidden_size), dtype=torch.float32, device=a.device)
        launch_gemm(a, w_down, out, rows, tile, epilogue="add", **common)
        return out.to(hidden.dtype)
    dtype = hidden.dtype if tile.split_k == 1 or hidden.dtype == torch.float64 else torch.float32
    parts = torch.empty((tile.split_k, topk_ids.numel(), hidden_size), dtype=dtype, device=a.device)
    launch_gemm(a, w_down, parts, rows, tile, epilogue="rows", **common)
    return combine(parts, topk_ids, experts, hidden.dtype, first_expert=expert.first_expert)


def experts_of_pairs(
    x: torch.Tensor,
    w_up: Weights,
    w_down: Weights,
    pair_expert: torch.Tensor,
    pair_token: torch.Tensor,
    pair_weight: torch.Tensor,
    expert: Expert,
    tiles: Tiles,
) -> torch.Tensor:
    """The layer over any (expert, token) pairs, such as those of a rank that also has shared experts: float32 [T, H].

    Args:
        x: [T, H].
        w_up, w_down: as in :func:`moe_kernels.triton.experts`.
        pair_expert, pair_token: int32 [P], the expert and the token of each pair.
        pair_weight: float32 [P], the weight of each pair.
        expert, tiles: as in :func:`moe_kernels.triton.experts`.
    """
    check_shapes(x, w_up, w_down, expert.matrices)
    out = torch.zeros(x.shape, dtype=torch.float32, device=x.device)
    if pair_token.numel() == 0:
        return out
    rows = align(pair_expert[:, None], w_down.shape[0], (tiles[0].block_m, tiles[1].block_m))
    # The alignment takes each pair for a token of its own.
    rows = replace(rows, token=pair_token[rows.slot])
    hidden = gemm_up(x, w_up, rows, expert, tiles[0], None)
    a_scale = None
    if isinstance(w_down, QuantizedWeights):
        hidden, a_scale = quantize_rows(hidden, w_down)
    launch_gemm(
        hidden, w_down, out, rows, tiles[1], gather=False, epilogue="add", a_scale=a_scale, row_weight=pair_weight
    )
    return out


def experts_train(
    x: torch.Tensor,
    w_up: torch.Tensor,
    w_down: torch.Tensor,
    topk_weights: torch.Tensor,
    topk_ids: torch.Tensor,
    expert: Expert,
    tiles: Tiles,
    b_up: torch.Tensor | None,
    b_down: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The output [T, H], and the product [P, matrices * I] before the activation, which the backward pass needs."""
    rows = align(topk_ids, w_down.shape[0], (tiles[0].block_m, tiles[1].block_m), first_expert=expert.first_expert)
    product = torch.empty((topk_ids.numel(), w_up.shape[1]), dtype=x.dtype, device=x.device)
    if topk_ids.numel() == 0:
        return torch.zeros_like(x), product
    launch_gemm(x, w_up, product, rows, tiles[0], gather=True, epilogue="partial", bias=b_up, matrices=expert.matrices)
    hidden = activate_rows(product[None], rows.start[-1:], expert.activation, expert.alpha, expert.limit, x.dtype)
    return gemm_down(hidden, w_down, rows, topk_weights, topk_ids, expert, tiles[1], b_down), product


def experts_backward(
    d_out: torch.Tensor,
    x: torch.Tensor,
    w_up: torch.Tensor,
    w_down: torch.Tensor,
    topk_weights: torch.Tensor,
    topk_ids: torch.Tensor,
    product: torch.Tensor,
    expert: Expert,
    b_down: torch.Tensor | None,
    wanted: tuple[bool, bool, bool],
) -> tuple[torch.Tensor, ...]:
    """The gradients of x, w_up, w_down, topk_weights, b_up and b_down.

    Args:
        wanted: whether those of w_up, of w_down and of both biases are wanted; what is not wanted comes out empty.
    """
    tile = backward_tile(x.dtype)
    experts, _, width = w_down.shape
    rows = align(topk_ids, experts, (tile.block_m, tile.block_m), first_expert=expert.first_expert)
    num_valid, num_pairs = rows.start[-1:], topk_ids.numel()
    # One tensor each: the outputs of an operator may not share memory.
    d_w_up, d_w_down, d_b_up, d_b_down = (x.new_empty(0) for _ in range(4))
    if num_pairs == 0:
        sizes = (w_up.shape, w_down.shape, w_up.shape[:2], w_down.shape[:2])
        kept = [x.new_zeros(size if want else 0) for size, want in zip(sizes, (*wanted, wanted[2]), strict=True)]
        return torch.zeros_like(x), kept[0], kept[1], torch.zeros_like(topk_weights), kept[2], kept[3]
    d_hidden = torch.empty((num_pairs, width), dtype=x.dtype, device=x.device)
    launch_gemm(d_out, w_down, d_hidden, rows, tile, gather=True, epilogue="hidden", transposed=True)
    d_product, weighted, d_weights = activate_rows_backward(
        product, d_hidden, rows.slot, topk_weights, num_valid, expert.activation, expert.alpha, expert.limit
    )
    if wanted[0]:
        d_w_up = weight_gradient(d_product, x, rows.token, rows.start, gather_left=False)
    if wanted[1]:
        d_w_down = weight_gradient(d_out, weighted, rows.token, rows.start, gather_left=True)
    d_rows = torch.empty((1, num_pairs, x.shape[1]), dtype=x.dtype, device=x.device)
    launch_gemm(d_product, w_up, d_rows, rows, tile, gather=False, epilogue="rows", transposed=True)
    d_x = combine(d_rows, topk_ids, experts, x.dtype, first_expert=expert.first_expert)
    if wanted[2]:
        # A bias is a weight whose input is always 1.
        ones = torch.ones((x.shape[0], 1), dtype=x.dtype, device=x.device)
        d_b_up = weight_gradient(d_product, ones, rows.token, rows.start, gather_left=False)[:, :, 0].contiguous()
        weight_of_row = topk_weights.reshape(-1)[rows.slot.clamp(0, num_pairs - 1)].to(x.dtype)[:, None].contiguous()
        d_b_down = weight_gradient(d_out, weight_of_row, rows.token, rows.start, gather_left=True)[:, :, 0].contiguous()
    if b_down is not None:
        _add_bias_part(d_weights, d_out, b_down, topk_ids, expert.first_expert)
    return d_x, d_w_up, d_w_down, d_weights, d_b_up, d_b_down


def _add_bias_part(
    d_weights: torch.Tensor, d_out: torch.Tensor, b_down: torch.Tensor, topk_ids: torch.Tensor, first_expert: int
) -> None:
    """Add to each choice's weight gradient what its expert's down bias contributes, in place."""
    local = topk_ids.long() - first_expert
    here = (local >= 0) & (local < b_down.shape[0])
    wide = d_weights.dtype
    each = d_out.to(wide) @ b_down.to(wide).T  # [T, E]: every token by every bias
    d_weights += torch.where(here, each.gather(1, local.clamp(0, b_down.shape[0] - 1)), 0)
