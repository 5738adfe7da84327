"""The shape of a mixture-of-experts layer, in Hugging Face's field names."""

from dataclasses import dataclass

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
        if isinstance(self.n_shared_experts, bool) or not isinstance(self.n_shared_experts, int):
            raise UserError("n_shared_experts", value=self.n_shared_experts, fix="give a whole number")
        if self.n_shared_experts < 0:
            raise UserError("n_shared_experts", value=self.n_shared_experts, fix="give 0 or more")
        if self.n_shared_experts > LARGEST_SIZE:
            raise UserError("n_shared_experts", value=self.n_shared_experts, fix=f"give at most {LARGEST_SIZE:,}")
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
    def expert_params(self) -> int:
        """Parameters of one expert."""
        return self.projections * self.hidden_size * self.moe_intermediate_size

    @property
    def layer_params(self) -> int:
        """Parameters of one layer: routed and shared experts and the router."""
        return (self.num_experts + self.n_shared_experts) * self.expert_params + self.hidden_size * self.num_experts

    @property
    def active_flops_per_token(self) -> float:
        """Expert FLOPs of one token in one layer (a multiply-add counts two)."""
        return 2.0 * (self.num_experts_per_tok + self.n_shared_experts) * self.expert_params

    def weight_bytes(self, dtype: str) -> float:
        """Bytes of all the model's MoE layers."""
        return self.num_layers * self.layer_params * DTYPE_BYTES[dtype]

    def label(self) -> str:
        """``H2048 I768 E128 k8`` and ``+1`` shared where there are any."""
        shared = f"+{self.n_shared_experts}" if self.n_shared_experts else ""
        return (
            f"H{self.hidden_size} I{self.moe_intermediate_size} E{self.num_experts} k{self.num_experts_per_tok}{shared}"
        )
