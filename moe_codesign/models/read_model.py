"""A model as it was read: its MoE shape and data type, and where each came from."""

from dataclasses import dataclass, field
from typing import Any

from moe_codesign.domain.shape import MoEShape

FIELDS = (
    "hidden_size",
    "moe_intermediate_size",
    "num_experts",
    "num_experts_per_tok",
    "n_shared_experts",
    "num_layers",
    "gated",
    "moe_latent_size",
    "zero_expert_num",
)
"""Fields of a shape, in the order in which they are shown."""


def notes_on(shape: MoEShape) -> list[str]:
    """What is not plain about a shape and its times, a sentence each."""
    notes = []
    if shape.zero_expert_num:
        notes.append(
            f"{shape.zero_expert_num} of the router's {shape.num_experts + shape.zero_expert_num} choices lead to no "
            f"expert and cost nothing: of a token's {shape.num_experts_per_tok}, {shape.choices_of_experts:.3g} reach "
            "an expert under uniform routing"
        )
    if shape.moe_latent_size is not None:
        notes.append(
            f"routed experts work at a latent width of {shape.moe_latent_size}; the projections there and back are no "
            "more part of a layer's time than the router is"
        )
    return notes


@dataclass(frozen=True)
class ReadModel:
    """A model as it was read from the catalogue or from a ``config.json``.

    Args:
        shape: of its MoE layers.
        dtype: of its experts, one of :data:`moe_codesign.domain.dtype.DTYPE_BYTES` or ``OTHER_DTYPES``; None where the
            source says none that is known.
        sources: the key that each field came from, or another word on where.
        notes: what a reader of the numbers should know, a sentence each.
    """

    shape: MoEShape
    dtype: str | None
    sources: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the shape's fields at the top level, with ``name``, ``dtype``, ``sources`` and ``notes``."""
        shape = {name: getattr(self.shape, name) for name in FIELDS}
        return {
            "name": self.shape.name, **shape, "dtype": self.dtype, "sources": self.sources, "notes": list(self.notes)
        }  # fmt: skip
