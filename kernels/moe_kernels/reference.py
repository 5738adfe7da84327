"""The layer in float64: what every kernel is checked against."""

from typing import Any

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]


def activate(gate: F64, up: F64 | None) -> F64:
    """SwiGLU of gate and up, or squared ReLU where there is no gate."""
    if up is None:
        return np.square(np.maximum(gate, 0.0))
    return gate / (1.0 + np.exp(-gate)) * up


def grouped_gemm(rows: F64, weights: F64, group_sizes: npt.NDArray[Any]) -> F64:
    """``rows`` [M, K] in group order times ``weights`` [G, K, N], each group by its own. Returns [M, N]."""
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
) -> F64:
    """The expert half of an MoE layer.

    Args:
        x: [T, H].
        w_gate, w_up: [E, H, I]; ``w_up`` None for an ungated layer.
        w_down: [E, I, H].
        pair_token: [P] token of each (token, expert) pair, sorted by expert.
        pair_weight: [P] router weight of each pair.
        group_sizes: [E] pairs of each expert.

    Returns:
        [T, H].
    """
    rows = x[pair_token]
    up = None if w_up is None else grouped_gemm(rows, w_up, group_sizes)
    hidden = activate(grouped_gemm(rows, w_gate, group_sizes), up)
    out = np.zeros_like(x)
    np.add.at(out, pair_token, grouped_gemm(hidden, w_down, group_sizes) * pair_weight[:, None])
    return out


def row_error(actual: F64, expected: F64) -> float:
    """Largest error of any element, relative to the root mean square of its row.

    A row of zeros must be met exactly. NaN anywhere gives NaN, so test with ``not (error <= tolerance)``.
    """
    scale = np.sqrt(np.mean(np.square(expected), axis=1, keepdims=True))
    error = np.abs(actual - expected)
    return float(np.max(np.where(scale > 0, error / np.where(scale > 0, scale, 1.0), error / 1e-30), initial=0.0))


BF16_TOLERANCE = 0.05
"""For :func:`row_error` of bfloat16 kernels that accumulate in float32.

bfloat16 rounds to 2**-9 relative. The rounded hidden row spreads as 2**-9 of the output's rms; the largest of
1e7 such errors is under 6 standard deviations (0.012). The rounded output adds 2**-9 of its largest element,
under 6 rms (0.012), once per expert where experts are summed in bfloat16. Together below 0.03; a dropped
expert, tail or scale changes some element by its own size, about 1.
"""
