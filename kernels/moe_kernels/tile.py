"""Tile configurations, in each backend's own words. Nothing else is imported here."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True, kw_only=True)
class TileConfig:
    """Positive whole numbers that choose one compiled form (and launch order) of a kernel.

    Raises:
        ValueError: a field is not a positive whole number.
    """

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{field.name} = {value!r} is not a positive whole number")

    @classmethod
    def fields(cls) -> tuple[str, ...]:
        return tuple(field.name for field in dataclasses.fields(cls))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Build from a mapping.

        Raises:
            ValueError: a field is missing, unknown, or not a positive whole number.
        """
        if unknown := sorted(set(values) - set(cls.fields())):
            raise ValueError(f"unknown tile field {unknown[0]!r}; the fields are {', '.join(cls.fields())}")
        missing = [f.name for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING and f.name not in values]
        if missing:
            raise ValueError(f"tile field {missing[0]!r} is missing; the fields are {', '.join(cls.fields())}")
        return cls(**values)

    def as_dict(self) -> dict[str, int]:
        return dataclasses.asdict(self)

    def label(self) -> str:
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class TritonTile(TileConfig):
    """``group_m`` is the number of row tiles that share a column of weights; it is a launch argument and does
    not change the binary."""

    block_m: int
    block_n: int
    block_k: int
    num_warps: int
    num_stages: int
    group_m: int = 8

    def label(self) -> str:
        return f"{self.block_m}x{self.block_n}x{self.block_k} w{self.num_warps} s{self.num_stages} g{self.group_m}"


@dataclass(frozen=True, kw_only=True)
class PallasTile(TileConfig):
    """Rows, depth and columns of one grid step."""

    tile_m: int
    tile_k: int
    tile_n: int

    def label(self) -> str:
        return f"{self.tile_m}x{self.tile_k}x{self.tile_n}"
