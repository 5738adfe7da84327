"""A pair: a shape and the tiles that run it, on a chip, under a workload, with its time and quality."""

import functools
import json
import math
from dataclasses import dataclass
from typing import Any

from pydantic import ConfigDict, TypeAdapter

from moe_codesign.domain.shape import MoEShape
from moe_codesign.domain.timing import Timing
from moe_codesign.domain.workload import Workload
from moe_kernels.tile import Value


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One candidate under one workload.

    Args:
        chip: name of the chip that the time is for.
        shape: the layer.
        workload: the batch and its split over chips.
        kernel: what runs it; None at grade ``datasheet``.
        tiles: (GEMM 1, GEMM 2), empty at grade ``datasheet``.
        tile_labels: how tables print them.
        timing: the time of one layer, with its evidence.
        quality_ratio: quality over the reference model's, by the study's scaling law; 1 is equal quality.
        outside: what of the shape lies outside the scaling law's range.

    Raises:
        ValueError: the quality is not above 0 and finite, or the labels are not one for each tile.
    """

    chip: str
    shape: MoEShape
    workload: Workload
    kernel: str | None
    tiles: tuple[dict[str, Value], ...]
    tile_labels: tuple[str, ...]
    timing: Timing
    quality_ratio: float
    outside: tuple[str, ...] = ()

    __pydantic_config__ = ConfigDict(extra="forbid")

    def __post_init__(self) -> None:
        if not (self.quality_ratio > 0 and math.isfinite(self.quality_ratio)):
            raise ValueError(f"quality_ratio {self.quality_ratio} is not above 0 and finite")
        if len(self.tiles) != len(self.tile_labels):
            raise ValueError(f"{len(self.tiles)} tiles have {len(self.tile_labels)} labels")

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


@functools.cache
def _json() -> TypeAdapter[Pair]:
    return TypeAdapter(Pair)
