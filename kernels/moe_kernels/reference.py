"""The layer in float64, which every kernel is checked against, and how large an error may be."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]


_ERF = np.vectorize(math.erf, otypes=[float])


def _sigmoid(x: F64) -> F64:
    return np.asarray(1.0 / (1.0 + np.exp(-x)))


def activate(gate: F64, up: F64 | None, activation: str | None = None) -> F64:
    """Hidden values of gate and up.

    Args:
        gate: products of the gate matrix, or of the only matrix.
        up: products of the up matrix, or None if the activation is not gated.
        activation: its name; by default SwiGLU, or squared ReLU where there is no ``up``.

    Raises:
        ValueError: the activation is unknown, or is gated and has no ``up``.
    """
    gelu = 0.5 * gate * (1.0 + _ERF(gate / math.sqrt(2.0))) if activation in ("geglu", "gelu") else gate
    match activation or ("relu2" if up is None else "swiglu"):
        case "relu2":
            return np.square(np.maximum(gate, 0.0))
        case "silu":
            return gate * _sigmoid(gate)
        case "gelu":
            return gelu
        case "none":
            return gate
        case "swiglu" if up is not None:
            return gate * _sigmoid(gate) * up
        case "geglu" if up is not None:
            return gelu * up
        case "geglu_tanh" if up is not None:
            inner = math.sqrt(2.0 / math.pi) * (gate + 0.044715 * gate**3)
            return 0.5 * gate * (1.0 + np.tanh(inner)) * up
        case "swiglu_oai" if up is not None:
            g = np.minimum(gate, 7.0)
            return g * _sigmoid(1.702 * g) * (np.clip(up, -7.0, 7.0) + 1.0)
    raise ValueError(f"activation {activation!r} is unknown, or lacks its up projection")


def grouped_gemm(rows: F64, weights: F64, group_sizes: npt.NDArray[Any]) -> F64:
    """``rows`` [M, K] in group order times ``weights`` [G, K, N], each group's rows by its own weights: [M, N]."""
    out = np.zeros((len(rows), weights.shape[2]))
    start = 0
    for group, size in enumerate(group_sizes):
        out[start : start + size] = rows[start : start + size] @ weights[group]
        start += int(size)
    return out


def moe_experts(
    x: F64,
    w_gate: F64,
    w_up: F64 | None,
    w_down: F64,
    pair_token: npt.NDArray[Any],
    pair_weight: npt.NDArray[Any],
    group_sizes: npt.NDArray[Any],
    activation: str | None = None,
) -> F64:
    """The expert half of an MoE layer.

    Args:
        x: [T, H].
        w_gate, w_up: [E, H, I]; ``w_up`` None for an ungated layer.
        w_down: [E, I, H].
        pair_token: [P] token of each (token, expert) pair, sorted by expert.
        pair_weight: [P] router weight of each pair.
        group_sizes: [E] pairs of each expert.
        activation: as :func:`activate`.

    Returns:
        [T, H].
    """
    rows = x[pair_token]
    up = None if w_up is None else grouped_gemm(rows, w_up, group_sizes)
    hidden = activate(grouped_gemm(rows, w_gate, group_sizes), up, activation)
    out = np.zeros_like(x)
    np.add.at(out, pair_token, grouped_gemm(hidden, w_down, group_sizes) * pair_weight[:, None])
    return out


def relative_errors(actual: F64, expected: F64) -> F64:
    """The error of every element, relative to the root mean square of its row.

    A row of zeros must be matched exactly. What is not a number has no error that any bound holds, so test with
    ``not (error <= tolerance)``.
    """
    scale = np.sqrt(np.mean(np.square(expected), axis=1, keepdims=True))
    return np.asarray(np.abs(actual - expected) / np.where(scale > 0, scale, 1e-30))


def row_error(actual: F64, expected: F64) -> float:
    """The largest of :func:`relative_errors`; NaN if any is NaN."""
    return float(np.max(relative_errors(actual, expected), initial=0.0))


OUTPUT_TOLERANCE = {"bfloat16": 0.08, "float16": 0.01}
"""Bound on :func:`row_error` of one GEMM (with its activation, or its weighted sum) on the operands that the kernel
had.

Products of 16-bit and 8-bit operands and of mxfp4's values are exact in float32 and are summed in it: an error of
2**-24 sqrt(K) of the rms, which is negligible. int4's values round once more, by 2**-9.3 of their rms, and a sum over K
averages that out. What is left is the rounding of the result, at most 2**-8 (bfloat16) or 2**-11 (float16) of itself. A
gated activation's result is a product of two normal numbers, whose largest of 1e7 is about 20 rms: 0.08 and 0.01. A
dropped expert, a dropped step of K or a doubled scale changes some element of a row by a good part of its rms.
"""

BF16_TOLERANCE = 0.05
"""Bound on :func:`row_error` of a whole bfloat16 layer that accumulates in float32.

bfloat16 rounds by 2**-8 at most, and by 2**-9.3 in the root mean square. Rounding the hidden row changes the output by
the same part of its rms; the largest of 1e7 such errors is under 6 standard deviations (0.01). Rounding the output adds
2**-8 of its largest element, which is under 6 rms (0.024). Together they stay below 0.04. A dropped expert, tail or
scale changes some element by its own size, about 1.
"""

LAYER_TOLERANCE = {
    "bfloat16": BF16_TOLERANCE,
    "float16": 0.01,
    "fp8": 0.35,
    "fp8_block": 0.35,
    "int8": 0.35,
    "mxfp4": BF16_TOLERANCE,
    "int4": BF16_TOLERANCE,
}
"""Bound on :func:`row_error` of a whole layer, computed from unquantised activations and the rounded weights.

4-bit weights meet 16-bit activations, so only the latter round. e4m3 keeps 3 bits of mantissa: it rounds by 2**-4 at
most and by 0.026 in the root mean square, twice (x and the hidden row), and the activation's slope widens that to 0.05
of the output's rms; the largest of 1e7 such errors is under 6 standard deviations. int8 rounds to 1/127 of the row's
peak, which is 5 to 15 rms: 0.035, with the same bound.
"""

LAYER_RMS = {
    "bfloat16": 0.005,
    "float16": 0.0006,
    "fp8": 0.1,
    "fp8_block": 0.1,
    "int8": 0.05,
    "mxfp4": 0.005,
    "int4": 0.007,
}
"""Bound on the root mean square of a whole layer's :func:`relative_errors`, as :data:`LAYER_TOLERANCE` bounds the
largest. It finds what is a little wrong everywhere, such as partial sums that are kept in 16 bits.

Two roundings, of the hidden row and of the result, are 0.0023 of the rms in bfloat16 and 0.0003 in float16; int4's
values round once more. e4m3 and int8 round the activations, twice: 0.05 and 0.02. The bounds are about twice that.
"""
