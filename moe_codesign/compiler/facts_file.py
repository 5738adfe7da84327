"""The files of compiled facts that ship: which there are, and which tiles each is to hold."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from moe_codesign.chips import chip_names, load_chip
from moe_codesign.compiler.artifact import Artifact
from moe_codesign.compiler.request import Request, request
from moe_codesign.compiler.shipped import (
    FOLDER,
    SAME_BINARIES,
    Key,
    ShippedTable,
    key_of,
    path_of,
    read_table,
    write_table,
)
from moe_codesign.compiler.source_hash import source_hash
from moe_codesign.compiler.tile_table import DEFAULT_ROWS, tiles_of
from moe_codesign.models import models
from moe_kernels.kernel import Kernel, Op, Problem
from moe_kernels.registry import DEFAULTS, kernels
from moe_kernels.tile import TileConfig

_SHARES = (1, 2, 4, 8)
"""Parts that the expert width is split into, whose default tiles are shipped too."""
_SIZES = (96, 100, 128, 256, 512, 768, 1408, 2048, 4096, 7168, 14336, 28672)
"""Depths and widths that stand for any: small and large, some of them no multiple of 16 bytes."""
_ROWS = (*DEFAULT_ROWS, 12, 25, 38, 50, 64, 76, 90, 140, 250, 350, 480, 4096)
"""Rows per expert: one of each range that a default rule tells apart."""
_DTYPES = ("bfloat16", "fp8_block", "fp8", "mxfp4", "int4", "int8", "float16")


@dataclass(frozen=True)
class FactsFile:
    """One file of shipped facts: a kernel, target, data type and op."""

    kernel: Kernel
    target: str
    dtype: str
    op: Op
    folder: Path = FOLDER

    @property
    def path(self) -> Path:
        return path_of(self.kernel.name, self.target, self.dtype, self.op, self.folder)

    def label(self) -> str:
        return f"{self.kernel.name} {self.target} {self.dtype} {self.op}"

    def requests(self) -> dict[Key, Request]:
        """The compile behind each tile, by the tile as it is kept: those of the kernel's spaces and its default tiles.

        Empty where the kernel refuses every tile, as for a data type that the target lacks: that needs no compiler.
        """
        problem = Problem(op=self.op, dtype=self.dtype)
        tiles = dict.fromkeys([*tiles_of(self.kernel, self.target, self.op, self.dtype), *self._defaults()])
        good = (tile for tile in tiles if self.kernel.refuses(problem, tile, self.target) is None)
        requests = (request(self.kernel, self.op, tile, self.dtype, self.target) for tile in good)
        return {key_of(one.tile): one for one in requests}

    def _defaults(self) -> Iterator[TileConfig]:
        """What an untuned user gets, for the catalogue's models and others: a size may need a tile of its own."""
        sizes = set(itertools.product(_SIZES, _SIZES))
        for shape, share in itertools.product(models().values(), _SHARES):
            inner = shape.moe_intermediate_size // share
            hidden = shape.expert_hidden_size
            sizes.add((inner, hidden) if self.op == "down" else (hidden, inner))
        for (k, n), rows in itertools.product(sorted(sizes), _ROWS):
            problem = Problem(op=self.op, dtype=self.dtype, k=k, n=n)
            yield self.kernel.default_tile(problem, rows, self.target)

    def table(self) -> ShippedTable | None:
        """The table that is there, of whichever source, if its tiles have the fields of the kernel's."""
        table = read_table(self.path)
        return table if table is not None and table.fields == self.kernel.tile_type.fields() else None

    def shipped(self) -> ShippedTable | None:
        """The table that is there, if it is of the kernel as it is now."""
        table = self.table()
        return table if table is not None and table.source_hash == source_hash(self.kernel.sources) else None

    def write(self, artifacts: Mapping[Key, Artifact], compiler: str, programs: Mapping[Key, str]) -> None:
        """Write these artifacts, and the hashes of their programs, as the file's."""
        fields = self.kernel.tile_type.fields()
        write_table(self.path, ShippedTable(source_hash(self.kernel.sources), compiler, fields, artifacts, programs))


def every_file(folder: Path = FOLDER) -> list[FactsFile]:
    """The files of every kernel that is compiled ahead of time, target of the catalogue, data type and op.

    Targets that another one's facts serve have none.
    """
    targets: dict[str, set[str]] = {}
    for chip in map(load_chip, chip_names()):
        if chip.compiles and chip.target is not None and chip.target not in SAME_BINARIES:
            targets.setdefault(chip.backend, set()).add(chip.target)
    files = (
        FactsFile(kernel, target, dtype, op, folder)
        for kernel in kernels()[0].values()
        if kernel.build is not None and not kernel.on_host
        for dtype in kernel.dtypes
        for op in kernel.ops
        for target in sorted(targets.get(kernel.backend, ()))
    )
    return sorted(files, key=_rank)


def _rank(file: FactsFile) -> tuple[bool, bool, int, bool]:
    """Missing files are made in this order: what is asked for most comes first, experts without a gate last."""
    dtype = _DTYPES.index(file.dtype) if file.dtype in _DTYPES else len(_DTYPES)
    return file.op == "up", file.kernel.name not in DEFAULTS.values(), dtype, file.op == "down"
