"""The shape of a whole model: layers of each kind, embedding and head, and the data type of each part."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from moe_codesign.domain.attention import GroupedQueryAttention
from moe_codesign.domain.dtype import DTYPE_BYTES, OTHER_BYTES, bytes_of_weight
from moe_codesign.domain.latent_attention import CompressedAttention, LatentAttention
from moe_codesign.domain.recurrence import (
    GatedDeltaNet,
    KimiDeltaAttention,
    LightningAttention,
    Mamba1,
    Mamba2,
    ShortConvolution,
)
from moe_codesign.domain.shape import MoEShape
from moe_codesign.domain.sizes import check_flags, check_sizes
from moe_codesign.errors import UserError

Attention: TypeAlias = (
    GroupedQueryAttention
    | LatentAttention
    | CompressedAttention
    | GatedDeltaNet
    | KimiDeltaAttention
    | LightningAttention
    | Mamba2
    | Mamba1
    | ShortConvolution
)
"""What mixes the tokens of a sequence in a layer: softmax attention, or a recurrence in its place."""
MAX_LAYERS = 10_000
"""Of a model; a reader makes a list of all of them."""


@dataclass(frozen=True, kw_only=True)
class DenseMlp:
    """A feed-forward part that every token passes.

    Args:
        intermediate_size: its width, after the gate.
        gated: gate and up projections (SwiGLU) if true, one up projection if false.

    Raises:
        UserError: the width is no positive whole number.
    """

    intermediate_size: int
    gated: bool = True

    def __post_init__(self) -> None:
        check_sizes(self, "intermediate_size")
        check_flags(self, "gated")

    def parameters(self, hidden_size: int) -> int:
        """hidden_size x intermediate_size x 3 with a gate, x 2 without."""
        return (3 if self.gated else 2) * hidden_size * self.intermediate_size


@dataclass(frozen=True, kw_only=True)
class LayerGroup:
    """Layers of a model that are equal; they need not follow each other, since order does not matter to time.

    Args:
        count: layers.
        attention: what mixes tokens; None where nothing does (Nemotron-H has layers of experts alone).
        dense: the dense feed-forward part; None without one.
        experts: whether the layer has the model's experts. A layer may have both (Gemma-4).

    Raises:
        UserError: ``count`` is no positive whole number, or the layer has no part at all.
    """

    count: int
    attention: Attention | None
    dense: DenseMlp | None = None
    experts: bool = False

    def __post_init__(self) -> None:
        check_sizes(self, "count")
        check_flags(self, "experts")
        if self.attention is None and self.dense is None and not self.experts:
            raise UserError("a group of layers has no part", fix="give attention, a dense part or experts")


@dataclass(frozen=True, kw_only=True)
class PartTypes:
    """The data type of each part of a model, by the names of :mod:`moe_codesign.domain.dtype`.

    Args:
        experts: routed experts.
        shared: shared experts.
        dense: dense feed-forward parts.
        attention: projections of attention and of what stands in its place.
        head: the projection to the vocabulary.
        rest: embedding, routers, latent projections, convolutions; and activations between the parts.
        kv_cache: cached keys and values.
        index_cache: cached keys of a sparse index; fp8 is kept with a float32 scale per 128 values.
        state: states of recurrences. Their convolutions' earlier tokens are kept as ``rest``.
        int4_group: weights that share a scale in parts of 4-bit integers.

    Raises:
        UserError: a type without a name, or a group that is no positive whole number.
    """

    experts: str = "bfloat16"
    shared: str = "bfloat16"
    dense: str = "bfloat16"
    attention: str = "bfloat16"
    head: str = "bfloat16"
    rest: str = "bfloat16"
    kv_cache: str = "bfloat16"
    index_cache: str = "fp8"
    state: str = "float32"
    int4_group: int = 128

    def __post_init__(self) -> None:
        check_sizes(self, "int4_group")
        for one in dataclasses.fields(self):
            value = getattr(self, one.name)
            if one.name != "int4_group" and value not in DTYPE_BYTES and value not in OTHER_BYTES:
                known = ", ".join((*DTYPE_BYTES, *OTHER_BYTES))
                raise UserError(f"type of {one.name}", value=value, fix=f"use one of {known}")

    def bytes_of(self, part: str) -> float:
        """Bytes of one weight or value of a part, with its share of a scale.

        Args:
            part: a field of this class or of :class:`Parameters`; parts without a type of their own are ``rest``.
        """
        dtype = getattr(self, part, self.rest)
        scale = 4 / 128 if part == "index_cache" and dtype == "fp8" else 0.0
        return bytes_of_weight(dtype, self.int4_group) + scale


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """Parameters of a model by part: of all that it holds, or of what one token uses.

    Biases, norms and other vectors are left out: they are far below a thousandth of it.
    """

    attention: float
    dense: float
    experts: float
    shared: float
    latent: float
    router: float
    embedding: float
    head: float

    @property
    def total(self) -> float:
        """Of all parts."""
        return sum(self.by_part().values())

    def by_part(self) -> dict[str, float]:
        """Each part's, by its name."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """A whole language model: what it multiplies each token with, and what it keeps of a sequence.

    Layers for multi-token prediction and parts for images or sound are not in it.

    Args:
        name: of the model.
        hidden_size: width H of a token.
        vocab_size: tokens that the embedding and the head know.
        groups: its layers.
        moe: the experts of the layers that have them; None for a dense model.
        tied_embeddings: whether the head's matrix is the embedding's.
        types: data type of each part.
        num_nextn_layers: layers for multi-token prediction that its files hold beside; 0 without one.
        sources: for each field, the key that it came from.
        notes: what a reader of its numbers should know, a sentence each.

    Raises:
        UserError: a size is no positive whole number; the groups and ``moe`` do not agree on the layers that have
            experts, or on the width of a token.
    """

    name: str
    hidden_size: int
    vocab_size: int
    groups: tuple[LayerGroup, ...]
    moe: MoEShape | None = None
    tied_embeddings: bool = False
    types: PartTypes = field(default_factory=PartTypes)
    num_nextn_layers: int = 0
    sources: Mapping[str, str] = field(default_factory=dict, compare=False)
    notes: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        check_sizes(self, "hidden_size")
        check_sizes(self, "num_nextn_layers", least=0)
        check_flags(self, "tied_embeddings")
        if isinstance(self.vocab_size, bool) or not isinstance(self.vocab_size, int) or self.vocab_size < 1:
            raise UserError("vocab_size", value=self.vocab_size, fix="give a whole number of at least 1")
        if not isinstance(self.groups, tuple) or not self.groups:
            raise UserError("groups", value=self.groups, fix="give a tuple of one LayerGroup or more")
        if self.num_layers > MAX_LAYERS:
            raise UserError("layers of a model", value=self.num_layers, fix=f"give at most {MAX_LAYERS:,}")
        having = sum(group.count for group in self.groups if group.experts)
        expected = self.moe.num_layers if self.moe else 0
        if having != expected:
            raise UserError(
                f"{having} layers of {self.name or 'a model'} have experts, and its MoEShape is of {expected}",
                fix="give the same number of layers",
            )
        if self.moe is not None and self.moe.hidden_size != self.hidden_size:
            raise UserError("hidden_size", value=self.hidden_size, fix=f"its experts' is {self.moe.hidden_size}")

    @property
    def num_layers(self) -> int:
        """All layers."""
        return sum(group.count for group in self.groups)

    def parameters(self) -> Parameters:
        """Parameters by part.

        - attention: of each layer, the projections and convolutions of its attention.
        - dense: 3 H I (2 H I without a gate) of each dense part.
        - experts, shared, latent: E x ``expert_params``, ``shared_params``, ``latent_params`` of :class:`MoEShape`, of
          each layer with experts; router: H x (E + zero experts).
        - embedding: vocab_size x H; head: the same, or 0 where the two are tied.
        """
        return self._parameters(active=False)

    def active_parameters(self) -> Parameters:
        """Parameters that one token is multiplied with, by part.

        As :meth:`parameters`, but of the routed experts those that a token visits, of the embedding none (a row is
        looked up), and of a tied head all.
        """
        return self._parameters(active=True)

    def _parameters(self, *, active: bool) -> Parameters:
        attention = sum(group.count * self._attention(group.attention) for group in self.groups)
        dense = sum(group.count * group.dense.parameters(self.hidden_size) for group in self.groups if group.dense)
        table = self.vocab_size * self.hidden_size
        moe = self.moe
        routed = shared = latent = router = 0.0
        if moe is not None:
            routed = moe.num_layers * (moe.choices_of_experts if active else moe.num_experts) * moe.expert_params
            shared, latent = moe.num_layers * moe.shared_params, moe.num_layers * moe.latent_params
            router = moe.num_layers * moe.hidden_size * (moe.num_experts + moe.zero_expert_num)
        return Parameters(
            attention=attention,
            dense=dense,
            experts=routed,
            shared=shared,
            latent=latent,
            router=router,
            embedding=0 if active else table,
            head=table if active or not self.tied_embeddings else 0,
        )

    def _attention(self, attention: Attention | None) -> int:
        if attention is None:
            return 0
        return attention.small_parameters + sum(one.parameters for one in attention.projections(self.hidden_size))

    def weight_bytes(self) -> dict[str, float]:
        """Bytes of the weights by part: its parameters x the bytes of its type, with scales."""
        return {part: count * self.types.bytes_of(part) for part, count in self.parameters().by_part().items()}

    def kv_bytes(self, context: int) -> float:
        """Bytes of cached keys and values, and of index keys, that one sequence of ``context`` tokens keeps.

        Summed over layers: numbers that the layer's attention caches x the bytes of their type. A window keeps at most
        its own tokens.

        Raises:
            UserError: ``context`` is no whole number of at least 0.
        """
        if isinstance(context, bool) or not isinstance(context, int) or context < 0:
            raise UserError("context", value=context, fix="give a whole number of tokens, 0 or more")
        values, keys = self.types.bytes_of("kv_cache"), self.types.bytes_of("index_cache")
        return sum(
            group.count * (values * one.cached_values(context) + keys * one.index_values(context))
            for group in self.groups
            if (one := group.attention) is not None
        )

    def kv_bytes_per_token(self) -> float:
        """Bytes that each further token of a long sequence adds to its cache; full windows add nothing.

        Layers that keep every token: their numbers a token x the bytes of their type; of compressed entries the share
        of a token.
        """
        values, keys = self.types.bytes_of("kv_cache"), self.types.bytes_of("index_cache")
        return sum(
            group.count * (values * one.cached_values_per_token + keys * one.index_values_per_token)
            for group in self.groups
            if (one := group.attention) is not None
        )

    def state_bytes(self) -> float:
        """Bytes of states, and of convolutions' earlier tokens, that one sequence keeps whatever its length."""
        state, rest = self.types.bytes_of("state"), self.types.bytes_of("rest")
        return sum(
            group.count * (state * one.state_values + rest * one.convolution_values)
            for group in self.groups
            if (one := group.attention) is not None
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the fields, and what follows from them."""
        return {
            "hidden_size": self.hidden_size,
            "vocab_size": self.vocab_size,
            "num_layers": self.num_layers,
            "groups": [_group(group) for group in self.groups],
            "tied_embeddings": self.tied_embeddings,
            "num_nextn_layers": self.num_nextn_layers,
            "types": dataclasses.asdict(self.types),
            "parameters": self.parameters().by_part() | {"total": self.parameters().total},
            "active_parameters": self.active_parameters().by_part() | {"total": self.active_parameters().total},
            "weight_bytes": self.weight_bytes() | {"total": sum(self.weight_bytes().values())},
            "kv_bytes_per_token": self.kv_bytes_per_token(),
            "state_bytes": self.state_bytes(),
            "sources": dict(self.sources),
            "notes": list(self.notes),
        }


def _group(group: LayerGroup) -> dict[str, Any]:
    attention = (
        None if group.attention is None else {"kind": group.attention.kind} | dataclasses.asdict(group.attention)
    )
    dense = None if group.dense is None else dataclasses.asdict(group.dense)
    return {"count": group.count, "attention": attention, "dense": dense, "experts": group.experts}
