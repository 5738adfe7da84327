"""One forward pass of a whole model under a split, as a list of operations: which, how often, and of which sizes.

Passes are columns: [passes] of new tokens, sequences and splits are answered together.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from moe_codesign.arrays import F64
from moe_codesign.cost.operations.fused_moe import HEIGHTS
from moe_codesign.cost.operations.operation import Sizes
from moe_codesign.cost.step.modes import Modes
from moe_codesign.domain.attention import GroupedQueryAttention
from moe_codesign.domain.latent_attention import LatentAttention
from moe_codesign.domain.model_shape import LayerGroup, ModelShape
from moe_codesign.domain.recurrence import GatedDeltaNet
from moe_codesign.domain.uniform_loads import expected_loads
from moe_codesign.errors import UserError

Phase = Literal["decode", "prefill"]


@dataclass(frozen=True, eq=False)
class Passes:
    """Forward passes as columns [passes].

    Args:
        phase: whether each sequence has one new token, or many.
        sequences: of one copy of attention.
        new_tokens: of each sequence: 1 in decode.
        past: tokens of each sequence before the new ones.
        tp, dp, moe_tp, ep: see :class:`moe_codesign.domain.deployment.ModelSplit`.
    """

    phase: Phase
    sequences: F64
    new_tokens: F64
    past: F64
    tp: F64
    dp: F64
    moe_tp: F64
    ep: F64

    @property
    def tokens(self) -> F64:
        """New tokens of one copy of attention."""
        return self.sequences * self.new_tokens

    def __len__(self) -> int:
        return len(self.sequences)


@dataclass(frozen=True, eq=False)
class Call:
    """An operation of a pass.

    Args:
        part: of the model, for saying where the time goes.
        operation, variant, sizes: see :mod:`moe_codesign.cost.operations`.
        count: times that the pass runs it, over all layers.
        where: passes that run it [passes]; None for all.
    """

    part: str
    operation: str
    variant: str
    sizes: Sizes
    count: float
    where: np.ndarray | None = None


_DISPATCHED = {"fp8": 1 + 4 / 128, "fp8_block": 1 + 4 / 128, "w4a8_mxfp4_mxfp8": 1 + 1 / 32, "nvfp4": 0.5 + 1 / 16}
"""Bytes of a number that is sent to an expert's rank, with its share of a scale; 2 of products in 16 bits. Results come
back in 16 bits."""


def calls(model: ModelShape, passes: Passes, modes: Modes) -> Iterator[Call]:
    """The operations of passes of a model.

    Raises:
        UserError: a kind of attention that no operation answers.
    """
    for group in model.groups:
        if group.attention is not None:
            yield from _attention(model, group, passes, modes)
            yield from _all_reduce("all-reduce", passes, model, group.count)
        if group.dense is not None:
            width, gated = group.dense.intermediate_size, group.dense.gated
            yield from _two_gemms("dense", passes, modes.dense, model.hidden_size, width, gated, group.count)
            yield from _all_reduce("all-reduce", passes, model, group.count)
        if group.experts:
            yield from _experts(model, group.count, passes, modes)
    # Only the last token of each sequence has its next one chosen.
    yield _gemm("head", modes.head, passes.sequences, model.vocab_size / passes.tp, model.hidden_size, 1)


def _gemm(part: str, variant: str, m: F64, n: F64 | float, k: F64 | float, count: float) -> Call:
    sizes = {
        "m": m,
        "n": np.ceil(np.broadcast_to(np.asarray(n, dtype=float), m.shape)),
        "k": np.ceil(np.broadcast_to(np.asarray(k, dtype=float), m.shape)),
    }
    return Call(part, "dense_gemm", variant, sizes, count)


def _attention(model: ModelShape, group: LayerGroup, passes: Passes, modes: Modes) -> Iterator[Call]:
    attention, hidden, count = group.attention, model.hidden_size, group.count
    full = np.ones(len(passes))
    if isinstance(attention, LatentAttention):
        sizes = {
            "batch": passes.sequences,
            "num_heads": np.maximum(attention.num_heads / passes.tp, 1.0),
            "hidden": full * hidden,
            "q_lora_rank": full * (0 if attention.q_lora_rank is None else attention.q_lora_rank),
            "kv_lora_rank": full * attention.kv_lora_rank,
            "qk_nope": full * attention.qk_nope_head_dim,
            "qk_rope": full * attention.qk_rope_head_dim,
            "v_head_dim": full * attention.v_head_dim,
        }
        variant = f"{modes.projections}/{modes.attention}"
        if passes.phase == "decode":
            yield Call("attention", "latent_decode", variant, {**sizes, "context": passes.past}, count)
        else:
            sizes = {**sizes, "tokens": passes.new_tokens, "past": passes.past}
            yield Call("attention", "latent_prefill", variant, sizes, count)
        return
    if isinstance(attention, GroupedQueryAttention):
        q, o, kv = _query_key_value_widths(attention)
        kv_share = np.maximum(attention.num_kv_heads / passes.tp, 1.0) / attention.num_kv_heads
        yield _gemm("projections", modes.projections, passes.tokens, q / passes.tp + kv * kv_share, hidden, count)
        yield _gemm("projections", modes.projections, passes.tokens, float(hidden), o / passes.tp, count)
        sizes = {
            "batch": passes.sequences,
            "num_heads": np.maximum(attention.num_heads / passes.tp, 1.0),
            "num_kv_heads": np.maximum(attention.num_kv_heads / passes.tp, 1.0),
            "head_dim": full * attention.head_dim,
            "window": full * (0 if attention.window is None else attention.window),
        }
        if passes.phase == "decode":
            yield Call("attention", "decode_attention", modes.attention, {**sizes, "context": passes.past}, count)
        else:
            sizes = {**sizes, "tokens": passes.new_tokens, "past": passes.past}
            yield Call("attention", "prefill_attention", modes.attention, sizes, count)
        return
    if isinstance(attention, GatedDeltaNet):
        for projection in attention.projections(hidden):
            into_heads = projection.inputs == hidden
            n = projection.outputs / passes.tp if into_heads else full * projection.outputs
            k = full * projection.inputs if into_heads else projection.inputs / passes.tp
            yield _gemm("projections", modes.projections, passes.tokens, n, k, count)
        sizes = {
            "batch": passes.sequences,
            "tokens": passes.new_tokens,
            "num_k_heads": np.maximum(attention.num_k_heads / passes.tp, 1.0),
            "num_v_heads": np.maximum(attention.num_v_heads / passes.tp, 1.0),
            "k_head_dim": full * attention.k_head_dim,
            "v_head_dim": full * attention.v_head_dim,
            "conv": full * attention.conv_kernel,
        }
        yield Call("attention", "gated_delta", passes.phase, sizes, count)
        return
    raise UserError(f"time of {attention.kind if attention else 'no'} attention is not known here")


def _query_key_value_widths(attention: GroupedQueryAttention) -> tuple[float, float, float]:
    """Columns of queries and gate, rows of the output projection, and columns of keys and values."""
    q = attention.num_heads * attention.head_dim + attention.gate_width
    kv = attention.num_kv_heads * (attention.head_dim + (0 if attention.values_are_keys else attention.value_dim))
    return float(q), float(attention.num_heads * attention.value_dim), float(kv)


def _two_gemms(
    part: str, passes: Passes, variant: str, hidden: int, width: float, gated: bool, count: float
) -> Iterator[Call]:
    yield _gemm(part, variant, passes.tokens, (2 if gated else 1) * width / passes.tp, float(hidden), count)
    yield _gemm(part, variant, passes.tokens, float(hidden), width / passes.tp, count)


def _all_reduce(part: str, passes: Passes, model: ModelShape, count: float) -> Iterator[Call]:
    several = passes.tp > 1
    if not several.any():
        return
    size = 2.0 * passes.tokens * model.hidden_size
    sizes = {"ranks": np.maximum(passes.tp, 2.0), "bytes": np.maximum(size, 128.0)}
    yield Call(part, "collective", "custom_all_reduce", sizes, count, several)


def _experts(model: ModelShape, count: float, passes: Passes, modes: Modes) -> Iterator[Call]:
    moe = model.moe
    assert moe is not None
    full = np.ones(len(passes))
    yield _gemm("router", "bfloat16", passes.tokens, float(moe.num_experts), float(model.hidden_size), count)
    if moe.shared_params:
        width = moe.shared_params / model.hidden_size / (3 if moe.gated else 2)
        yield from _two_gemms("shared experts", passes, modes.shared, model.hidden_size, width, moe.gated, count)
    every = passes.tokens * passes.dp
    loads = expected_loads(every, full * moe.num_experts, full * moe.num_experts_per_tok, passes.ep, heights=HEIGHTS)
    cut = np.ceil(moe.moe_intermediate_size / passes.moe_tp)
    sizes: dict[str, F64] = {
        "tokens": every,
        "hidden": full * moe.expert_hidden_size,
        "width": cut,
        "up_width": (2 if moe.gated else 1) * cut,
        "experts": full * moe.num_experts,
        "local_experts": moe.num_experts / passes.ep,
        "top_k": full * moe.num_experts_per_tok,
        "rows": loads.rows,
        "active": loads.active,
        "whole_width": full * moe.moe_intermediate_size,
        **{f"tiles_{height}": tiles for height, tiles in zip(HEIGHTS, loads.row_tiles, strict=True)},
    }
    yield Call("experts", "fused_moe", modes.moe, sizes, count)
    # Copies of attention have tokens of their own, which go to the ranks of their experts and come back; one copy's
    # tokens are on all ranks already, whose results are added.
    apart = passes.dp > 1
    if apart.any():
        mode = "low_latency" if passes.phase == "decode" else "normal"
        each: dict[str, F64] = {
            "ranks": np.maximum(passes.ep, 2.0),
            "tokens": np.maximum(passes.tokens / passes.tp, 1.0),
            "hidden": full * moe.expert_hidden_size,
            "top_k": full * moe.num_experts_per_tok,
            "experts": full * moe.num_experts,
        }
        item = full * _DISPATCHED.get(modes.moe, 2.0)
        yield Call("dispatch", "all_to_all", f"dispatch/{mode}", {**each, "item_bytes": item}, count, apart)
        yield Call("combine", "all_to_all", f"combine/{mode}", {**each, "item_bytes": full * 2.0}, count, apart)
    together = (passes.dp == 1) & (passes.tp > 1)
    if together.any():
        sizes = {"ranks": np.maximum(passes.tp, 2.0), "bytes": np.maximum(2.0 * passes.tokens * model.hidden_size, 128)}
        yield Call("all-reduce", "collective", "custom_all_reduce", sizes, count, together)


def moved_bytes(model: ModelShape, passes: Passes) -> F64:
    """Bytes of norms, residuals and activations between the operations, which run at the memory's speed."""
    return 2.0 * passes.tokens * model.hidden_size * 6.0 * model.num_layers
