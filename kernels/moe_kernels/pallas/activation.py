"""The activations that a kernel applies to its sums before it stores them, in float32."""

import math

import jax
import jax.numpy as jnp

from moe_kernels.kernel import Op

GATED = ("swiglu", "geglu_tanh", "swiglu_oai")
ACTIVATIONS = (*GATED, "relu2", "silu", "none")

ACTIVATION_OF: dict[Op, str] = {"gate_up": "swiglu", "up": "relu2", "down": "none"}
"""What each GEMM of a layer applies when it is compiled or timed as a part of the layer."""


def activate(gate: jax.Array, up: jax.Array | None, activation: str) -> jax.Array:
    """Hidden values, as :func:`moe_kernels.reference.activate` computes them in float64.

    Raises:
        ValueError: the activation is unknown, or is gated and has no ``up``.
    """
    match activation:
        case "none":
            return gate
        case "silu":
            return gate * jax.nn.sigmoid(gate)
        case "relu2":
            return jnp.square(jnp.maximum(gate, 0.0))
        case "swiglu" if up is not None:
            return gate * jax.nn.sigmoid(gate) * up
        case "geglu_tanh" if up is not None:
            inner = math.sqrt(2.0 / math.pi) * (gate + 0.044715 * gate * gate * gate)
            return 0.5 * gate * (1.0 + jnp.tanh(inner)) * up
        case "swiglu_oai" if up is not None:
            # gpt-oss: gate at most 7, up within 7, alpha 1.702 (openai/gpt-oss, swiglu).
            g = jnp.minimum(gate, 7.0)
            return g * jax.nn.sigmoid(1.702 * g) * (jnp.clip(up, -7.0, 7.0) + 1.0)
    raise ValueError(f"activation {activation!r} is unknown or lacks its up projection; use {', '.join(ACTIVATIONS)}")
