"""What a chip of a deployment must hold: its share of the weights, and the cache of its sequences."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from moe_codesign.arrays import F64
from moe_codesign.chips import Chip
from moe_codesign.domain.attention import GroupedQueryAttention
from moe_codesign.domain.latent_attention import CompressedAttention, LatentAttention
from moe_codesign.domain.model_shape import Attention, ModelShape

USABLE = 0.9
"""Share of a chip's memory that weights and cache may fill; activations, graphs and libraries have the rest. vLLM's
default (``gpu_memory_utilization``)."""


@dataclass(frozen=True, eq=False)
class Held:
    """Bytes on each chip, as columns [deployments].

    Args:
        weights: its share of the weights. cache: keys, values and states of its sequences at their full length.
        usable: what there is for both.
    """

    weights: F64
    cache: F64
    usable: float

    @property
    def fits(self) -> np.ndarray:
        """Whether both fit [deployments]."""
        return np.asarray(self.weights + self.cache <= self.usable)

    def say(self, place: int) -> str:
        """The sum of one deployment: ``weights 85.2 + cache 3.1 = 88.3 GB of 72.0 usable``."""
        weights, cache = self.weights[place] / 1e9, self.cache[place] / 1e9
        return f"weights {weights:.1f} + cache {cache:.1f} = {weights + cache:.1f} GB of {self.usable / 1e9:.1f} usable"


def held(model: ModelShape, chip: Chip, split: Mapping[str, F64], sequences: F64, tokens: float) -> Held:
    """What each chip holds.

    Routed experts are spread over moe_tp x ep, all other matrices over tp, and repeated in each copy of attention;
    routers and norms are on every chip.

    Args:
        model: its types decide the bytes.
        chip: each of them.
        split: columns ``tp``, ``moe_tp``, ``ep`` [deployments].
        sequences: of one copy of attention [deployments].
        tokens: of a sequence at its end.
    """
    by_part = model.weight_bytes()
    spread = split["moe_tp"] * split["ep"]
    weights = sum(
        (size / (spread if part == "experts" else 1.0 if part == "router" else split["tp"]))
        for part, size in by_part.items()
    )
    cache = sum(
        group.count * _cache(model, group.attention, split["tp"], tokens)
        for group in model.groups
        if group.attention is not None
    )
    return Held(np.asarray(weights), np.asarray(sequences * cache), USABLE * chip.memory.hbm_bytes)


def _cache(model: ModelShape, attention: Attention, tp: F64, tokens: float) -> F64:
    """Bytes that a sequence keeps on each chip in one layer."""
    types = model.types
    context = int(tokens)
    cached = types.bytes_of("kv_cache") * attention.cached_values(context)
    cached += types.bytes_of("index_cache") * attention.index_values(context)
    state = types.bytes_of("state") * attention.state_values + types.bytes_of("rest") * attention.convolution_values
    # Latent vectors have no heads to split: every rank keeps all of them.
    if isinstance(attention, LatentAttention | CompressedAttention):
        return np.asarray(cached + state / tp)
    heads = attention.num_kv_heads if isinstance(attention, GroupedQueryAttention) else np.inf
    return np.asarray(cached / np.minimum(tp, heads) + state / tp)
