"""The activations between the two GEMMs, gated and plain, and their derivatives, in float32.

===============  =====  ====================================================================================
name             gated  hidden
===============  =====  ====================================================================================
``swiglu``       yes    ``silu(gate) * up``
``geglu``        yes    ``gelu(gate) * up``, gelu from the error function
``geglu_tanh``   yes    the same with gelu's tanh form (Gemma)
``swiglu_oai``   yes    ``g * sigmoid(alpha g) * (u + 1)``, g = min(gate, limit), u = clamp(up, +-limit) (gpt-oss)
``relu2``        no     ``max(gate, 0) ** 2`` (Nemotron)
``silu``         no     ``silu(gate)``
``gelu``         no     gelu from the error function
``none``         no     the product itself
===============  =====  ====================================================================================
"""

import triton
import triton.language as tl

GATED = ("swiglu", "geglu", "geglu_tanh", "swiglu_oai")
PLAIN = ("relu2", "silu", "gelu", "none")
ACTIVATIONS = GATED + PLAIN
SWIGLU_OAI_ALPHA = 1.702
SWIGLU_OAI_LIMIT = 7.0
"""From gpt-oss: alpha from its reference implementation, the limit from its config.json (``swiglu_limit``)."""


@triton.jit
def _normal_cdf(x):
    return 0.5 * (1.0 + tl.erf(x * 0.7071067811865476))


@triton.jit
def _tanh_gate(x):
    # 0.5 (1 + tanh(y)) is sigmoid(2 y).
    return tl.sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))


@triton.jit
def activate(gate, up, alpha, limit, ACTIVATION: tl.constexpr):
    """Hidden values of gate and up; up is ignored if the activation is not gated."""
    if ACTIVATION == "swiglu":
        hidden = gate * tl.sigmoid(gate) * up
    elif ACTIVATION == "geglu":
        hidden = gate * _normal_cdf(gate) * up
    elif ACTIVATION == "geglu_tanh":
        hidden = gate * _tanh_gate(gate) * up
    elif ACTIVATION == "swiglu_oai":
        g = tl.minimum(gate, limit)
        u = tl.minimum(tl.maximum(up, -limit), limit)
        hidden = g * tl.sigmoid(alpha * g) * (u + 1.0)
    elif ACTIVATION == "relu2":
        hidden = tl.maximum(gate, 0.0) * tl.maximum(gate, 0.0)
    elif ACTIVATION == "silu":
        hidden = gate * tl.sigmoid(gate)
    elif ACTIVATION == "gelu":
        hidden = gate * _normal_cdf(gate)
    else:
        tl.static_assert(ACTIVATION == "none", "unknown activation")
        hidden = gate
    return hidden


@triton.jit
def activate_backward(gate, up, d_hidden, alpha, limit, ACTIVATION: tl.constexpr):
    """Gradients (d_gate, d_up) of :func:`activate`; d_up is a copy of d_gate if the activation is not gated."""
    if ACTIVATION == "swiglu":
        s = tl.sigmoid(gate)
        d_gate = d_hidden * up * s * (1.0 + gate * (1.0 - s))
        d_up = d_hidden * gate * s
    elif ACTIVATION == "geglu":
        cdf = _normal_cdf(gate)
        density = 0.3989422804014327 * tl.exp(-0.5 * gate * gate)
        d_gate = d_hidden * up * (cdf + gate * density)
        d_up = d_hidden * gate * cdf
    elif ACTIVATION == "geglu_tanh":
        s = _tanh_gate(gate)
        slope = 1.5957691216057308 * (1.0 + 0.134145 * gate * gate)
        d_gate = d_hidden * up * (s + gate * s * (1.0 - s) * slope)
        d_up = d_hidden * gate * s
    elif ACTIVATION == "swiglu_oai":
        g = tl.minimum(gate, limit)
        u = tl.minimum(tl.maximum(up, -limit), limit)
        s = tl.sigmoid(alpha * g)
        d_gate = tl.where(gate <= limit, d_hidden * (u + 1.0) * s * (1.0 + alpha * g * (1.0 - s)), 0.0)
        d_up = tl.where((up >= -limit) & (up <= limit), d_hidden * g * s, 0.0)
    elif ACTIVATION == "relu2":
        d_gate = d_hidden * 2.0 * tl.maximum(gate, 0.0)
        d_up = d_gate
    elif ACTIVATION == "silu":
        s = tl.sigmoid(gate)
        d_gate = d_hidden * s * (1.0 + gate * (1.0 - s))
        d_up = d_gate
    elif ACTIVATION == "gelu":
        d_gate = d_hidden * (_normal_cdf(gate) + gate * 0.3989422804014327 * tl.exp(-0.5 * gate * gate))
        d_up = d_gate
    else:
        tl.static_assert(ACTIVATION == "none", "unknown activation")
        d_gate = d_hidden
        d_up = d_hidden
    return d_gate, d_up
