"""Tile configurations, in each backend's own words. This module imports nothing of the package, so all may use it."""

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Self

Value = int | bool
"""The value of one tile field."""


@dataclass(frozen=True, kw_only=True)
class TileConfig(ABC):
    """Positive whole numbers and switches that choose one compiled form of a kernel, and the order of its launch.

    Raises:
        ValueError: a field is not a positive whole number, or a switch is not true or false.
    """

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type is bool:
                if not isinstance(value, bool):
                    raise ValueError(f"{field.name} = {value!r} is not true or false")
            elif isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{field.name} = {value!r} is not a positive whole number")

    @classmethod
    def fields(cls) -> tuple[str, ...]:
        """The names of the fields, in the order of their declaration."""
        return tuple(field.name for field in dataclasses.fields(cls))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The tile of these fields.

        Raises:
            ValueError: a field is missing, unknown, or has a value that the type does not allow.
        """
        if unknown := sorted(set(values) - set(cls.fields())):
            raise ValueError(f"unknown tile field {unknown[0]!r}; the fields are {', '.join(cls.fields())}")
        missing = [f.name for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING and f.name not in values]
        if missing:
            raise ValueError(f"tile field {missing[0]!r} is missing; the fields are {', '.join(cls.fields())}")
        return cls(**values)

    def as_dict(self) -> dict[str, Value]:
        """The fields by name."""
        return {name: getattr(self, name) for name in self.fields()}

    @abstractmethod
    def label(self) -> str:
        """A short name for tables: the block sizes first, then what differs from the default."""


@dataclass(frozen=True, kw_only=True)
class TritonTile(TileConfig):
    """One program's share of a grouped GEMM, and how programs and loads are arranged.

    Args:
        block_m: token rows of a program's tile.
        block_n: output columns of it, of gate and of up each.
        block_k: depth of one step of the loop over K.
        num_warps, num_stages: as in Triton: warps of a program, and steps whose loads are under way.
        group_m: row tiles that share a column of weights. A launch argument: it does not change the binary.
        split_k: parts of K that run side by side. A launch argument too.
        persistent: as many programs as the device has room for walk the tiles, instead of one program per tile.
        tma: load weights (and, unless swapped, rows in expert order) through tensor descriptors.
        swap_ab: the weights' rows take the wide side of the matrix instruction, for experts with few token rows.
        maxnreg: registers that a thread may have, so that more blocks share a core; 255 is as many as there can be.
    """

    block_m: int
    block_n: int
    block_k: int
    num_warps: int
    num_stages: int
    group_m: int = 8
    split_k: int = 1
    persistent: bool = False
    tma: bool = False
    swap_ab: bool = False
    maxnreg: int = 255

    def label(self) -> str:
        words = [f"{self.block_m}x{self.block_n}x{self.block_k}", f"w{self.num_warps}", f"s{self.num_stages}"]
        words.append(f"g{self.group_m}")
        if self.split_k > 1:
            words.append(f"k{self.split_k}")
        words += [
            word for word, on in (("persistent", self.persistent), ("tma", self.tma), ("swap", self.swap_ab)) if on
        ]
        if self.maxnreg < 255:
            words.append(f"r{self.maxnreg}")
        return " ".join(words)

    def compile_options(self) -> dict[str, int]:
        """The fields that Triton's compiler takes as options of its own."""
        options = {"num_warps": self.num_warps, "num_stages": self.num_stages}
        return options | ({"maxnreg": self.maxnreg} if self.maxnreg < 255 else {})


@dataclass(frozen=True, kw_only=True)
class BlockedTile(TileConfig):
    """Rows, depth and columns of one step of the host's grouped matmul."""

    tile_m: int
    tile_k: int
    tile_n: int

    def label(self) -> str:
        return f"{self.tile_m}x{self.tile_k}x{self.tile_n}"


LANES = 128
"""Columns of one of the tiles that a TPU lays memory out in."""

SUBLANES = 8
"""Rows of such a tile of 32-bit values. No copy can start or end inside one."""

WHOLE_DEPTH = 32768
"""A tile_k that is at least the K of every model in the catalogue: the whole depth in one step."""


@dataclass(frozen=True, kw_only=True)
class PallasTile(TileConfig):
    """Rows, depth and columns of one step of the TPU's grouped matmul, and how its copies are arranged.

    Args:
        tile_m: rows of a visit.
        tile_k, tile_n: depth and columns of one block of weights. A tile_k of K or more needs no accumulator.
        bucket_m: rows are computed in buckets of this many; buckets that a visit does not reach are left out.
        weight_buffers, row_buffers: blocks of weights, and of rows, in VMEM: one in use, the others on their way.
        rows_outer: rows stay in VMEM while the columns pass; otherwise weights stay while their group's rows pass.
        cores: cores of one device that share the column tiles (v5p has two).
    """

    tile_m: int
    tile_k: int
    tile_n: int
    bucket_m: int = 128
    weight_buffers: int = 3
    row_buffers: int = 2
    rows_outer: bool = False
    cores: int = 1

    @property
    def buckets(self) -> int:
        """Buckets of a full visit."""
        return -(-self.tile_m // self.bucket_m)

    @property
    def stretches(self) -> tuple[int, ...]:
        """Sizes, in buckets, of the stretches of code that a visit which is not full chooses from.

        They are powers of two, the largest first, whose sums give every number of buckets below a full visit's.
        """
        return tuple(1 << bit for bit in reversed(range((self.buckets - 1).bit_length())))

    def label(self) -> str:
        words = [f"{self.tile_m}x{self.tile_k}x{self.tile_n}", f"b{self.bucket_m}"]
        words += [f"w{self.weight_buffers}", f"r{self.row_buffers}"]
        words += ["rows"] if self.rows_outer else []
        words += [f"{self.cores} cores"] if self.cores > 1 else []
        return " ".join(words)
