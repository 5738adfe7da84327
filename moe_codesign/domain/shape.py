"""The shape of a mixture-of-experts layer, in Hugging Face's field names."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from pydantic import ConfigDict

from moe_codesign.domain.dtype import DTYPE_BYTES
from moe_codesign.errors import UserError

LARGEST_SIZE = 1_000_000
"""Of any size of a layer; what is counted for each expert would else take all of a machine's memory."""


@dataclass(frozen=True, kw_only=True)
class MoEShape:
    """One MoE layer, and how many of it the model has.

    Args:
        hidden_size: width H of a token.
        moe_intermediate_size: width I of one expert, after the gate.
        num_experts: routed experts E.
        num_experts_per_tok: routed experts k that a token visits.
        n_shared_experts: experts of the same width that every token visits.
        num_layers: MoE layers in the model.
        gated: gate and up projections (SwiGLU) if true, one up projection if false.
        moe_latent_size: width that routed experts work at, where a projection takes a token there and another brings it
            back; shared experts work at ``hidden_size``. None, the usual, where routed experts do so too.
        zero_expert_num: choices of the router, beside the E experts, that lead to no expert and cost nothing. A token
            makes k choices of E + ``zero_expert_num``.

    Raises:
        UserError: a size is not a positive integer, ``gated`` is not true or false, or k exceeds E.
    """

    hidden_size: int
    moe_intermediate_size: int
    num_experts: int
    num_experts_per_tok: int
    n_shared_experts: int = 0
    num_layers: int = 1
    gated: bool = True
    moe_latent_size: int | None = None
    zero_expert_num: int = 0
    name: str = ""

    __pydantic_config__ = ConfigDict(extra="forbid")

    def __post_init__(self) -> None:
        if not isinstance(self.gated, bool):
            raise UserError("gated", value=self.gated, fix="give true or false")
        for field in ("hidden_size", "moe_intermediate_size", "num_experts", "num_experts_per_tok", "num_layers"):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UserError(field, value=value, fix="give a whole number of at least 1")
            if value > LARGEST_SIZE:
                raise UserError(field, value=value, fix=f"give at most {LARGEST_SIZE:,}; no layer comes near")
        for field in ("n_shared_experts", "zero_expert_num"):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int):
                raise UserError(field, value=value, fix="give a whole number")
            if value < 0:
                raise UserError(field, value=value, fix="give 0 or more")
            if value > LARGEST_SIZE:
                raise UserError(field, value=value, fix=f"give at most {LARGEST_SIZE:,}")
        latent = self.moe_latent_size
        if latent is not None and (isinstance(latent, bool) or not isinstance(latent, int) or latent < 1):
            raise UserError("moe_latent_size", value=latent, fix="give a whole number of at least 1, or leave it out")
        if latent is not None and latent > LARGEST_SIZE:
            raise UserError("moe_latent_size", value=latent, fix=f"give at most {LARGEST_SIZE:,}")
        if not self.name.isprintable():
            raise UserError("name of a model", value=self.name, fix="give one of printable characters")
        if self.num_experts_per_tok > self.num_experts:
            raise UserError(
                "num_experts_per_tok",
                value=self.num_experts_per_tok,
                fix=f"a token cannot visit more than num_experts = {self.num_experts}",
            )

    @property
    def projections(self) -> int:
        """Weight matrices of one expert: gate, up, down; or up, down."""
        return 3 if self.gated else 2

    @property
    def expert_hidden_size(self) -> int:
        """Width at which routed experts work: what their GEMMs see as H."""
        return self.hidden_size if self.moe_latent_size is None else self.moe_latent_size

    @property
    def expert_params(self) -> int:
        """Parameters of one routed expert."""
        return self.projections * self.expert_hidden_size * self.moe_intermediate_size

    @property
    def shared_params(self) -> int:
        """Parameters of all shared experts of a layer."""
        return self.n_shared_experts * self.projections * self.hidden_size * self.moe_intermediate_size

    @property
    def latent_params(self) -> int:
        """Parameters of the projections to the latent width and back, in a layer; 0 without one."""
        return 0 if self.moe_latent_size is None else 2 * self.hidden_size * self.moe_latent_size

    @property
    def layer_params(self) -> int:
        """Parameters of one layer: routed and shared experts, latent projections and the router."""
        router = self.hidden_size * (self.num_experts + self.zero_expert_num)
        return self.num_experts * self.expert_params + self.shared_params + self.latent_params + router

    @property
    def choices_of_experts(self) -> float:
        """Choices of a token that reach a routed expert, on average under uniform routing: k without zero experts."""
        return self.num_experts_per_tok * self.num_experts / (self.num_experts + self.zero_expert_num)

    @property
    def active_flops_per_token(self) -> float:
        """Expert FLOPs of one token in one layer, latent projections with them (a multiply-add counts two)."""
        return 2.0 * (self.choices_of_experts * self.expert_params + self.shared_params + self.latent_params)

    @property
    def total_params(self) -> int:
        """Parameters of all the model's MoE layers."""
        return self.num_layers * self.layer_params

    @property
    def active_params(self) -> float:
        """Parameters of the MoE layers that a token uses: its experts', and the routers'."""
        router = self.hidden_size * (self.num_experts + self.zero_expert_num)
        return self.num_layers * (self.active_flops_per_token / 2 + router)

    def replaced(self, **fields: Any) -> "MoEShape":
        """Another shape, without a name, that differs in these fields.

        Raises:
            UserError: as the class.
        """
        return dataclasses.replace(self, **fields, name="")

    def weight_bytes(self, dtype: str) -> float:
        """Bytes of all the model's MoE layers."""
        return self.total_params * DTYPE_BYTES[dtype]

    def label(self) -> str:
        """``H2048 I768 E128 k8`` and ``+1`` shared, ``L1024`` latent, ``Z256`` zero experts where there are any."""
        shared = f"+{self.n_shared_experts}" if self.n_shared_experts else ""
        latent = f" L{self.moe_latent_size}" if self.moe_latent_size is not None else ""
        zero = f" Z{self.zero_expert_num}" if self.zero_expert_num else ""
        return (
            f"H{self.hidden_size}{latent} I{self.moe_intermediate_size} E{self.num_experts}{zero} "
            f"k{self.num_experts_per_tok}{shared}"
        )
