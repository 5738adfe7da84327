"""What the layer is asked to do: tokens, type, routing, and how the layer is split over chips."""

from dataclasses import dataclass, field

from moe_codesign.domain.dtype import DTYPE_BYTES
from moe_codesign.domain.routing import Routing
from moe_codesign.domain.shape import MoEShape
from moe_codesign.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One batch through one layer.

    Args:
        name: what reports call it ("decode", "prefill").
        num_tokens: tokens in the batch, over all chips.
        dtype: type of weights and activations.
        routing: which experts the tokens choose.
        tp: tensor-parallel ranks (each holds ``moe_intermediate_size / tp`` of every expert).
        ep: expert-parallel ranks (each holds ``num_experts / ep`` experts). The busiest one is timed.
        seed: of the routing's draw.

    Raises:
        UserError: a size below 1 or an unknown dtype.
    """

    name: str
    num_tokens: int
    dtype: str = "bfloat16"
    routing: Routing = field(default_factory=Routing)
    tp: int = 1
    ep: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("num_tokens", "tp", "ep"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UserError(name, value=value, fix="give a whole number of at least 1")
        if self.dtype not in DTYPE_BYTES:
            raise UserError("dtype", value=self.dtype, fix="use one of " + ", ".join(DTYPE_BYTES))

    @property
    def chips(self) -> int:
        """Chips that share the layer."""
        return self.tp * self.ep

    def misfit(self, shape: MoEShape) -> str | None:
        """Why this shape cannot be split so, or None."""
        if shape.moe_intermediate_size % self.tp:
            return f"moe_intermediate_size {shape.moe_intermediate_size} is no multiple of tp {self.tp}"
        if shape.num_experts % self.ep:
            return f"num_experts {shape.num_experts} is no multiple of ep {self.ep}"
        return None
