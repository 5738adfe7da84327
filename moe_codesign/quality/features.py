"""Shapes as scaling laws see them: one array for each quantity, one entry for each shape."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from moe_codesign.arrays import F64
from moe_codesign.domain.shape import MoEShape


@dataclass(frozen=True, kw_only=True)
class Features:
    """What laws ask of shapes; every array is float64 [shapes], and of the whole model without its embeddings.

    Attention is counted as four ``hidden_size`` x ``hidden_size`` projections a layer (Kaplan et al., 2001.08361, table
    1, with d_attn = d_model), as a MoEShape knows no attention.

    Args:
        hidden: width H of a token.
        width: width I of an expert.
        experts: routed experts E of a layer.
        active: routed experts that a token reaches, on average; k where there are no zero experts.
        shared: shared experts of a layer.
        total_params: parameters N.
        active_params: parameters that a token uses, Na.
        forward_flops: FLOPs of a token's forward pass M (a multiply-add counts two).
        tokens: training tokens D.
    """

    hidden: F64
    width: F64
    experts: F64
    active: F64
    shared: F64
    total_params: F64
    active_params: F64
    forward_flops: F64
    tokens: F64

    @property
    def compute(self) -> F64:
        """Training compute C = M x D, with M the forward FLOPs of a token: as the Efficiency Leverage paper counts."""
        return self.forward_flops * self.tokens

    @property
    def activated_share(self) -> F64:
        """A = (k + s) / (E + s)."""
        return (self.active + self.shared) / (self.experts + self.shared)

    @property
    def dense_widths(self) -> F64:
        """How many experts make up a dense layer of 4 H: the granularity G of Krajewski et al., 2402.07871."""
        return 4 * self.hidden / self.width

    def scaled(self, times: F64) -> "Features":
        """One shape's model, made ``times`` as large in parameters and FLOPs, on the same tokens."""
        one = {f.name: np.broadcast_to(getattr(self, f.name), times.shape) for f in dataclasses.fields(self)}
        for name in ("total_params", "active_params", "forward_flops"):
            one[name] = one[name] * times
        return Features(**one)


def features_of(shapes: Sequence[MoEShape], training_tokens: float | F64) -> Features:
    """The features of shapes.

    Args:
        shapes: of the models, with their number of MoE layers. Dense layers are unknown and left out.
        training_tokens: one number for all of them, or one each.
    """

    def column(value: Callable[[MoEShape], float]) -> F64:
        return np.fromiter(map(value, shapes), dtype=float, count=len(shapes))

    return Features(
        hidden=column(lambda s: s.hidden_size),
        width=column(lambda s: s.moe_intermediate_size),
        experts=column(lambda s: s.num_experts),
        active=column(lambda s: s.choices_of_experts),
        shared=column(lambda s: s.n_shared_experts),
        total_params=column(lambda s: s.num_layers * (s.layer_params + _attention_params(s))),
        active_params=column(forward_flops_per_token) / 2,
        forward_flops=column(forward_flops_per_token),
        tokens=np.broadcast_to(np.asarray(training_tokens, dtype=float), (len(shapes),)),
    )


def forward_flops_per_token(shape: MoEShape) -> float:
    """FLOPs of one token through the whole model, without embeddings: attention, router and experts."""
    router = 2.0 * shape.hidden_size * (shape.num_experts + shape.zero_expert_num)
    return shape.num_layers * (shape.active_flops_per_token + 2.0 * _attention_params(shape) + router)


def _attention_params(shape: MoEShape) -> float:
    return 4.0 * shape.hidden_size**2
