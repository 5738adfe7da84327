"""How a whole model is spread over chips, and how many users it serves there."""

from dataclasses import dataclass

from moe_codesign.domain.sizes import check_sizes
from moe_codesign.errors import UserError


@dataclass(frozen=True, kw_only=True)
class ModelSplit:
    """How a model's parts are split.

    Attention is split over ``tp`` ranks and repeated ``dp`` times, each copy with sequences of its own; experts are
    split over ``moe_tp`` x ``ep`` ranks, which are the same chips. Layers are spread over ``pp`` stages.

    Args:
        tp: ranks that share attention, dense parts and the head.
        dp: copies of attention.
        moe_tp: ranks that share each expert's width.
        ep: ranks that share the experts.
        pp: stages of layers.

    Raises:
        UserError: a size is no positive whole number, or attention and experts are on unlike numbers of chips.
    """

    tp: int = 1
    dp: int = 1
    moe_tp: int = 1
    ep: int = 1
    pp: int = 1

    def __post_init__(self) -> None:
        check_sizes(self, "tp", "dp", "moe_tp", "ep", "pp")
        if self.tp * self.dp != self.moe_tp * self.ep:
            raise UserError(
                f"attention is on tp x dp = {self.tp * self.dp} chips and experts on moe_tp x ep = "
                f"{self.moe_tp * self.ep}",
                fix="give splits with equal products",
            )

    @property
    def chips(self) -> int:
        """Chips of one copy of the model."""
        return self.tp * self.dp * self.pp

    def __str__(self) -> str:
        parts = {"tp": self.tp, "dp": self.dp, "moe tp": self.moe_tp, "ep": self.ep, "pp": self.pp}
        return " ".join(f"{name}{size}" for name, size in parts.items() if size > 1) or "one chip"
