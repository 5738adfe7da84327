"""A model as it was read: its MoE shape and data type, and where each came from."""

from dataclasses import dataclass, field
from typing import Any

from moe_codesign.domain.model_shape import ModelShape
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
        whole: the whole model, where it was asked for and could be read.
        no_whole: why the whole model could not be read; empty where it was, or was not asked for.
    """

    shape: MoEShape
    dtype: str | None
    sources: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    whole: ModelShape | None = None
    no_whole: str = ""

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the shape's fields at the top level, with name, dtype, sources, notes and the whole model."""
        return {
            "name": self.shape.name,
            **{name: getattr(self.shape, name) for name in FIELDS},
            "dtype": self.dtype,
            "sources": self.sources,
            "notes": list(self.notes),
            "whole": self.whole.to_dict() if self.whole else None,
            **({"no_whole": self.no_whole} if self.no_whole else {}),
        }


def dense_to_dict(model: ModelShape) -> dict[str, Any]:
    """A model without experts for JSON, with the keys of :meth:`ReadModel.to_dict`; what speaks of experts is null."""
    return {
        "name": model.name,
        **dict.fromkeys(FIELDS),
        "hidden_size": model.hidden_size,
        "num_layers": 0,
        "dtype": model.types.dense,
        "sources": {"hidden_size": model.sources["hidden_size"], "dtype": model.sources["types.dense"]},
        "notes": [],
        "whole": model.to_dict(),
    }
