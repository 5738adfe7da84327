"""A pair: a shape and the tiles that run it, on a chip, under a workload, with its time and quality."""

import functools
import json
import math
from dataclasses import dataclass, field
from typing import Any

from pydantic import ConfigDict, GetCoreSchemaHandler, TypeAdapter
from pydantic_core import CoreSchema, core_schema

from moe_codesign.domain.shape import MoEShape
from moe_codesign.domain.tile_pair import TilePair
from moe_codesign.domain.timing import Timing
from moe_codesign.domain.workload import Workload
from moe_kernels.registry import kernel_named
from moe_kernels.tile import Value


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One candidate under one workload.

    Args:
        chip: name of the chip that the time is for.
        shape: the layer.
        workload: the batch and its split.
        kernel: what runs it; None at grade ``datasheet``.
        tiles: of the kernel, for the layer's two GEMMs; None at grade ``datasheet``.
        timing: the time of one layer, with its evidence.
        quality_ratio: quality over the reference model's, by the study's scaling law; 1 is equal quality.
        outside: what of the shape lies outside the scaling law's range.
        quality_by_law: the same ratio by every other law that applies to the shape, by the law's name.
        notes: why the time deserves less trust, as the cost model says, a sentence each.

    Raises:
        ValueError: the quality is not above 0 and finite, or there are tiles and no kernel.
    """

    chip: str
    shape: MoEShape
    workload: Workload
    kernel: str | None
    tiles: TilePair | None
    timing: Timing
    quality_ratio: float
    outside: tuple[str, ...] = ()
    quality_by_law: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not (self.quality_ratio > 0 and math.isfinite(self.quality_ratio)):
            raise ValueError(f"quality_ratio {self.quality_ratio} is not above 0 and finite")
        for law, ratio in self.quality_by_law.items():
            if not (ratio > 0 and math.isfinite(ratio)):
                raise ValueError(f"quality_by_law: {law} {ratio} is not above 0 and finite")
        if self.tiles is not None and self.kernel is None:
            raise ValueError(f"tiles {self.tiles.label()} have no kernel")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """In JSON and databases a pair is a :class:`_Stored`."""
        stored = handler.generate_schema(_Stored)
        return core_schema.no_info_after_validator_function(
            _Stored.pair,
            stored,
            serialization=core_schema.plain_serializer_function_ser_schema(_Stored.of, return_schema=stored),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; :meth:`from_dict` reads it back."""
        data: dict[str, Any] = _json().dump_python(self, mode="json")
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Pair":
        """Read what :meth:`to_dict` wrote.

        Raises:
            ValueError: a field is unknown, missing or of another type, or the values cannot be.
            UserError: sizes of the shape or the workload that cannot be.
        """
        return _json().validate_json(json.dumps(data), strict=True)


@dataclass(frozen=True, kw_only=True)
class _Stored:
    """A pair as JSON holds it: its tiles by their fields, (GEMM 1, GEMM 2) or none, and how tables print them."""

    chip: str
    shape: MoEShape
    workload: Workload
    kernel: str | None
    tiles: tuple[dict[str, Value], ...]
    tile_labels: tuple[str, ...]
    timing: Timing
    quality_ratio: float
    outside: tuple[str, ...] = ()
    quality_by_law: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    __pydantic_config__ = ConfigDict(extra="forbid")

    @classmethod
    def of(cls, pair: Pair) -> "_Stored":
        return cls(
            chip=pair.chip,
            shape=pair.shape,
            workload=pair.workload,
            kernel=pair.kernel,
            tiles=tuple(tile.as_dict() for tile in pair.tiles or ()),
            tile_labels=tuple(tile.label() for tile in pair.tiles or ()),
            timing=pair.timing,
            quality_ratio=pair.quality_ratio,
            outside=pair.outside,
            quality_by_law=pair.quality_by_law,
            notes=pair.notes,
        )

    def pair(self) -> Pair:
        """The pair; its labels are what its tiles say today.

        Raises:
            ValueError: there is no such kernel, or the tiles are not two tiles of it.
        """
        return Pair(
            chip=self.chip,
            shape=self.shape,
            workload=self.workload,
            kernel=self.kernel,
            tiles=_tiles(self.kernel, self.tiles) if self.tiles else None,
            timing=self.timing,
            quality_ratio=self.quality_ratio,
            outside=self.outside,
            quality_by_law=self.quality_by_law,
            notes=self.notes,
        )


def _tiles(kernel: str | None, tiles: tuple[dict[str, Value], ...]) -> TilePair:
    known = kernel_named(kernel) if kernel is not None else None
    if known is None:
        raise ValueError(f"kernel {kernel!r}, whose tiles these are, is not known")
    if len(tiles) != 2:
        raise ValueError(f"tiles are of GEMM 1 and GEMM 2, and these are {len(tiles)}")
    return TilePair(known.tile_type.from_dict(tiles[0]), known.tile_type.from_dict(tiles[1]))


@functools.cache
def _json() -> TypeAdapter[Pair]:
    return TypeAdapter(Pair)
