"""What happens to rows between the GEMMs and after them.

The activation of results that were split along K, the activation's gradient, and the sum over a token's experts.
"""

from typing import Any

import torch
import triton
import triton.language as tl

from moe_kernels.triton.activation import GATED, activate, activate_backward
from moe_kernels.triton.device import launching_on

_COLUMNS = 512


@triton.jit
def activate_kernel(
    product_ptr,
    hidden_ptr,
    num_valid_ptr,
    num_rows,
    N,
    splits,
    alpha,
    limit,
    MATRICES: tl.constexpr,
    ACTIVATION: tl.constexpr,
    BLOCK: tl.constexpr,
    dtype: tl.constexpr,
):
    """Sum products [splits, rows, MATRICES N] over the splits, in order, and apply the activation: hidden [rows, N]."""
    row = tl.program_id(0).to(tl.int64)
    if row < tl.load(num_valid_ptr):
        cols = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        ok = cols < N
        at = product_ptr + row * (MATRICES * N) + cols
        gate = tl.load(at, mask=ok, other=0.0).to(dtype)
        up = gate
        if MATRICES == 2:
            up = tl.load(at + N, mask=ok, other=0.0).to(dtype)
        for split in range(1, splits):
            part = product_ptr + (row + split * num_rows) * (MATRICES * N) + cols
            gate += tl.load(part, mask=ok, other=0.0).to(dtype)
            if MATRICES == 2:
                up += tl.load(part + N, mask=ok, other=0.0).to(dtype)
        hidden = activate(gate, up, alpha, limit, ACTIVATION)
        tl.store(hidden_ptr + row * N + cols, hidden.to(hidden_ptr.dtype.element_ty), mask=ok)


@triton.jit
def activate_backward_kernel(
    product_ptr,
    d_hidden_ptr,
    slot_ptr,
    weight_ptr,
    d_product_ptr,
    weighted_hidden_ptr,
    d_weight_ptr,
    num_valid_ptr,
    N,
    alpha,
    limit,
    MATRICES: tl.constexpr,
    ACTIVATION: tl.constexpr,
    BLOCK: tl.constexpr,
    dtype: tl.constexpr,
):
    """Gradients of one row per program.

    Writes d_product, the weighted hidden row (which the weight gradient needs) and the gradient of the router's weight.
    ``d_hidden`` does not contain the router's weight: its product with the hidden row is the gradient of that weight.
    """
    row = tl.program_id(0).to(tl.int64)
    if row < tl.load(num_valid_ptr):
        slot = tl.load(slot_ptr + row)
        weight = tl.load(weight_ptr + slot).to(dtype)
        d_weight = tl.zeros((BLOCK,), dtype=dtype)
        for start in range(0, N, BLOCK):
            cols = start + tl.arange(0, BLOCK)
            ok = cols < N
            at = row * (MATRICES * N) + cols
            gate = tl.load(product_ptr + at, mask=ok, other=0.0).to(dtype)
            up = gate
            if MATRICES == 2:
                up = tl.load(product_ptr + at + N, mask=ok, other=0.0).to(dtype)
            d_hidden = tl.load(d_hidden_ptr + row * N + cols, mask=ok, other=0.0).to(dtype)
            hidden = activate(gate, up, alpha, limit, ACTIVATION)
            d_weight += tl.where(ok, hidden * d_hidden, 0.0)
            d_gate, d_up = activate_backward(gate, up, d_hidden * weight, alpha, limit, ACTIVATION)
            out = d_product_ptr.dtype.element_ty
            tl.store(weighted_hidden_ptr + row * N + cols, (hidden * weight).to(out), mask=ok)
            tl.store(d_product_ptr + at, d_gate.to(out), mask=ok)
            if MATRICES == 2:
                tl.store(d_product_ptr + at + N, d_up.to(out), mask=ok)
        tl.store(d_weight_ptr + slot, tl.sum(d_weight, 0).to(d_weight_ptr.dtype.element_ty))


@triton.jit
def combine_kernel(
    rows_ptr,
    ids_ptr,
    out_ptr,
    num_slots,
    H,
    top_k,
    splits,
    first_expert,
    num_experts,
    BLOCK: tl.constexpr,
    dtype: tl.constexpr,
):
    """Sum rows [splits, tokens * top_k, H] to out [tokens, H]: choice after choice, and split after split."""
    token = tl.program_id(0).to(tl.int64)
    cols = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    ok = cols < H
    total = tl.zeros((BLOCK,), dtype=dtype)
    for choice in range(top_k):
        slot = token * top_k + choice
        expert = tl.load(ids_ptr + slot).to(tl.int32) - first_expert
        here = (expert >= 0) & (expert < num_experts)
        for split in range(splits):
            at = rows_ptr + (slot + split * num_slots) * H + cols
            total += tl.load(at, mask=ok & here, other=0.0).to(dtype)
    tl.store(out_ptr + token * H + cols, total.to(out_ptr.dtype.element_ty), mask=ok)


def _wide(dtype: torch.dtype) -> Any:
    return tl.float64 if dtype == torch.float64 else tl.float32


def activate_rows(
    product: torch.Tensor, num_valid: torch.Tensor, activation: str, alpha: float, limit: float, dtype: torch.dtype
) -> torch.Tensor:
    """Hidden rows [rows, N] from products [splits, rows, N or 2 N]; rows from ``num_valid`` [1] on are not written."""
    splits, num_rows, width = product.shape
    matrices = 2 if activation in GATED else 1
    n = width // matrices
    hidden = torch.empty((num_rows, n), dtype=dtype, device=product.device)
    grid = (num_rows, triton.cdiv(n, _COLUMNS))
    with launching_on(product.device):
        activate_kernel[grid](
            product, hidden, num_valid, num_rows, n, splits, alpha, limit,
            MATRICES=matrices, ACTIVATION=activation, BLOCK=_COLUMNS, dtype=_wide(product.dtype),
        )  # fmt: skip
    return hidden


def activate_rows_backward(
    product: torch.Tensor,
    d_hidden: torch.Tensor,
    slot: torch.Tensor,
    weight: torch.Tensor,
    num_valid: torch.Tensor,
    activation: str,
    alpha: float,
    limit: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """d_product [rows, N or 2 N], hidden times weight [rows, N], and d_weight in the shape of ``weight``."""
    d_product, weighted = torch.empty_like(product), torch.empty_like(d_hidden)
    d_weight = torch.zeros_like(weight)
    with launching_on(product.device):
        activate_backward_kernel[(product.shape[0],)](
            product, d_hidden, slot, weight, d_product, weighted, d_weight, num_valid, d_hidden.shape[1], alpha, limit,
            MATRICES=2 if activation in GATED else 1, ACTIVATION=activation, BLOCK=_COLUMNS,
            dtype=_wide(product.dtype),
        )  # fmt: skip
    return d_product, weighted, d_weight


def combine(
    rows: torch.Tensor, ids: torch.Tensor, num_experts: int, dtype: torch.dtype, *, first_expert: int = 0
) -> torch.Tensor:
    """Each token's rows, summed in the order of its choices: [T, H].

    Args:
        rows: [splits, T * top_k, H].
        ids: int [T, top_k], the experts of each token. Rows of experts on other ranks count as zero.
        num_experts: experts of this rank.
        dtype: type of the result.
        first_expert: the first expert of this rank.
    """
    splits, num_slots, hidden_size = rows.shape
    num_tokens, top_k = ids.shape
    out = torch.empty((num_tokens, hidden_size), dtype=dtype, device=rows.device)
    with launching_on(rows.device):
        combine_kernel[(num_tokens, triton.cdiv(hidden_size, _COLUMNS))](
            rows, ids.contiguous(), out, num_slots, hidden_size, top_k, splits, first_expert, num_experts,
            BLOCK=_COLUMNS, dtype=_wide(dtype),
        )  # fmt: skip
    return out
