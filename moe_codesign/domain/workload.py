"""The batch that a layer runs: tokens, data type, routing, and how the layer is split over chips."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, PlainSerializer, PlainValidator

from moe_codesign.domain.dtype import DTYPE_BYTES, SCALE_BLOCK, SCALE_GROUP, parse_dtype
from moe_codesign.domain.routing import (
    DEFAULT_ROUTING,
    RecordedLayers,
    Routing,
    is_routing,
    parse_layers,
    parse_routing,
)
from moe_codesign.domain.shape import MoEShape
from moe_codesign.errors import UserError

LARGEST_BATCH = 100_000_000
"""Tokens of a batch; what a machine serves at once has a few million."""


def _routing(value: object) -> Routing:
    if is_routing(value):
        return value
    if not isinstance(value, str):
        raise ValueError("give a text, as zipf:0.5")
    try:
        return parse_routing(value)
    except UserError as error:
        raise ValueError(str(error)) from None


def _layers(value: object) -> Routing | RecordedLayers:
    if isinstance(value, RecordedLayers) or is_routing(value):
        return value
    if not isinstance(value, str):
        raise ValueError("give a text, as zipf:0.5")
    try:
        return parse_layers(value)
    except UserError as error:
        raise ValueError(str(error)) from None


def _dtype(value: str) -> str:
    try:
        return parse_dtype(value)
    except UserError as error:
        raise ValueError(str(error)) from None


DtypeText = Annotated[str, AfterValidator(_dtype)]
"""A data type in a table, in any usual spelling; its value is the one name that it has here."""
RoutingText = Annotated[Routing, PlainValidator(_routing, json_schema_input_type=str), PlainSerializer(str)]
"""A routing in a table or in JSON, where it is its text."""
LayersText = Annotated[
    Routing | RecordedLayers, PlainValidator(_layers, json_schema_input_type=str), PlainSerializer(str)
]
"""The same, or the loads of several layers."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One batch through one layer.

    Args:
        name: what reports call it ("decode", "prefill").
        num_tokens: tokens in the batch, over all ranks together.
        dtype: type of weights and activations.
        routing: which experts the tokens choose; default uniform.
        tp: tensor-parallel ranks (each holds ``moe_intermediate_size / tp`` of every expert).
        ep: expert-parallel ranks (each holds ``num_experts / ep`` experts). The busiest one is timed.
        seed: seed of the routing's random draw, where one very draw is meant, as in a measurement. None, the default,
            asks for what is to be expected, which no single draw decides.

    Raises:
        UserError: a size is below 1, the dtype is unknown, or ``routing`` is not one of the five kinds (its text is
            read by :func:`moe_codesign.domain.routing.parse_routing`).
    """

    name: str
    num_tokens: int
    dtype: str = "bfloat16"
    routing: RoutingText = DEFAULT_ROUTING
    tp: int = 1
    ep: int = 1
    seed: int | None = None

    __pydantic_config__ = ConfigDict(extra="forbid")

    def __post_init__(self) -> None:
        for name in ("num_tokens", "tp", "ep"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UserError(name, value=value, fix="give a whole number of at least 1")
            if value > LARGEST_BATCH:
                raise UserError(name, value=value, fix=f"give at most {LARGEST_BATCH:,}")
        if not self.name.isprintable():
            raise UserError("name of a workload", value=self.name, fix="give one of printable characters")
        if self.dtype not in DTYPE_BYTES:
            raise UserError("dtype", value=self.dtype, fix="use one of " + ", ".join(DTYPE_BYTES))

        if not is_routing(self.routing):
            raise UserError("routing", value=self.routing, fix="give a routing, as parse_routing('zipf:1')")

    @property
    def chips(self) -> int:
        """Chips that share the layer."""
        return self.tp * self.ep

    def misfit(self, shape: MoEShape) -> str | None:
        """Why this shape cannot be split so in this data type, or None."""
        if shape.moe_intermediate_size % self.tp:
            return f"moe_intermediate_size {shape.moe_intermediate_size} is not a multiple of tp {self.tp}"
        if shape.num_experts % self.ep:
            return f"num_experts {shape.num_experts} is not a multiple of ep {self.ep}"
        width = shape.moe_intermediate_size // self.tp
        of_rank = f"moe_intermediate_size / tp = {width}"
        if group := SCALE_GROUP.get(self.dtype):
            hidden = shape.expert_hidden_size
            of_token = f"{'hidden_size' if shape.moe_latent_size is None else 'moe_latent_size'} {hidden}"
            for size, name in ((hidden, of_token), (width, of_rank)):
                if size % group:
                    return f"{name} is not a multiple of the {group} weights that share a scale in {self.dtype}"
        if self.tp > 1 and width % SCALE_BLOCK.get(self.dtype, 1):
            return f"{of_rank} is not a multiple of {self.dtype}'s scale block of {SCALE_BLOCK[self.dtype]}"
        if shape.n_shared_experts and shape.hidden_size % shape.expert_hidden_size:
            return (
                f"hidden_size {shape.hidden_size} is not a multiple of moe_latent_size {shape.moe_latent_size}, which "
                "shared experts at full width are timed by"
            )
        return None
