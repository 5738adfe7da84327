"""Tiles and weights as a registered operator takes them, and back.

An operator's schema knows tensors, numbers and lists of numbers. A tile is the list of its fields' values, in the order
in which :class:`moe_kernels.tile.TritonTile` declares them; an empty list leaves the choice to the call.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import torch

from moe_kernels.tile import TritonTile
from moe_kernels.triton.launch import Weights
from moe_kernels.triton.quantize import QuantizedWeights

_FIELDS = TritonTile.fields()
_KINDS = tuple(field.type for field in dataclasses.fields(TritonTile))


def pack_tiles(tiles: Sequence[TritonTile]) -> list[int]:
    """The fields of these tiles, one tile after the other."""
    return [int(getattr(tile, name)) for tile in tiles for name in _FIELDS]


def unpack_tiles(numbers: Sequence[int]) -> list[TritonTile]:
    """The tiles of :func:`pack_tiles`."""
    return [_tile(tuple(numbers[i : i + len(_FIELDS)])) for i in range(0, len(numbers), len(_FIELDS))]


@functools.cache
def _tile(numbers: tuple[int, ...]) -> TritonTile:
    values = [bool(number) if kind is bool else number for number, kind in zip(numbers, _KINDS, strict=True)]
    return TritonTile.from_dict(dict(zip(_FIELDS, values, strict=True)))


class PackedWeights(NamedTuple):
    """One projection's weights, in an operator's words; ``scale`` is None where they are not quantised."""

    values: torch.Tensor
    scale: torch.Tensor | None
    activation_scale: torch.Tensor | None
    group: int


def pack_weights(weights: Weights) -> PackedWeights:
    """Quantised weights by their parts, others as they are."""
    if isinstance(weights, QuantizedWeights):
        return PackedWeights(weights.values, weights.scale, weights.activation_scale, weights.group)
    return PackedWeights(weights, None, None, 128)


def unpack_weights(packed: PackedWeights, dtype: str) -> Weights:
    """The weights of :func:`pack_weights`, whose data type is ``dtype``."""
    if packed.scale is None:
        return packed.values
    return QuantizedWeights(packed.values, packed.scale, dtype, packed.activation_scale, packed.group)
