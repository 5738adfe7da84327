"""One chip's compiled tiles of one kernel and op, as columns ready for arithmetic."""

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moe_codesign.arrays import F64
from moe_codesign.chips import Chip
from moe_codesign.compiler import Artifact, ArtifactCache, Request, compile_all, requests_for, unlaunchable
from moe_codesign.compiler.build import Progress
from moe_codesign.compiler.kernels import kernel_for
from moe_kernels.kernel import Kernel, Op, Problem
from moe_kernels.tile import TileConfig, Value

TileSpace = Mapping[str, tuple[Value, ...]]
_DEFAULT_ROWS = (1, 8, 24, 48, 96, 256, 1024)
"""Rows per expert: one of each range that default rules tell apart."""


@dataclass(frozen=True)
class TileTable:
    """Tiles that compiled, one row each, and why the others did not."""

    kernel: Kernel
    chip: Chip
    op: Op
    tiles: tuple[TileConfig, ...]
    artifacts: tuple[Artifact, ...]
    columns: dict[str, F64]
    refused: dict[TileConfig, str]

    def __len__(self) -> int:
        return len(self.tiles)

    def index(self, tile: TileConfig) -> int | None:
        """Row of a tile, or None if it did not compile or was not compiled."""
        return self._rows.get(tile)

    def rows(self, places: npt.NDArray[np.int64]) -> "TileTable":
        """The table of these rows, in this order."""
        columns = {name: values[places] for name, values in self.columns.items()}
        tiles, artifacts = (tuple(every[i] for i in places) for every in (self.tiles, self.artifacts))
        return TileTable(self.kernel, self.chip, self.op, tiles, artifacts, columns, self.refused)

    def unsupported(self, problem: Problem) -> dict[int, str]:
        """Rows whose tile cannot run a problem of this very size, and why."""
        if problem not in self._unsupported:
            reasons = ((i, self.kernel.refuses(problem, tile, self.chip.target)) for i, tile in enumerate(self.tiles))
            self._unsupported[problem] = {i: reason for i, reason in reasons if reason is not None}
        return self._unsupported[problem]

    @functools.cached_property
    def _rows(self) -> dict[TileConfig, int]:
        return {tile: i for i, tile in enumerate(self.tiles)}

    @functools.cached_property
    def _unsupported(self) -> dict[Problem, dict[int, str]]:
        return {}


_NARROW_MMA = ("QGMMA", "QMMA", "IGMMA", "IMMA", "fp8", "f8f6f4", "i8")
"""Words of 8-bit matrix instructions. Without them 8-bit operands were widened, and run at the 16-bit rate."""


class Tables:
    """Tile tables by (chip, kernel, op, dtype), compiled where the cache lacks them."""

    def __init__(self, cache: ArtifactCache | None = None, *, jobs: int = 1, progress: Progress | None = None) -> None:
        self.cache = cache or ArtifactCache()
        self.jobs = jobs
        self.progress = progress
        self._tables: dict[tuple[str, str, Op, str, str], TileTable] = {}

    def prepare(self, wanted: Iterable[tuple[Chip, TileSpace | None, Iterable[Op], str]]) -> None:
        """Compile every tile of those (chip, space, ops, dtype) that have a compiler, all in one pool.

        Default tiles are compiled along: what is searched is compared with them.
        """
        requests: list[Request] = []
        for chip, space, ops, dtype in wanted:
            if chip.compiles:
                kernel = kernel_for(chip)
                if dtype in kernel.dtypes:
                    for op in ops:
                        tiles = dict.fromkeys(
                            [*_tiles(kernel, chip, op, dtype, space), *_defaults(kernel, chip, op, dtype)]
                        )
                        requests += requests_for(kernel, chip, (op,), dtype, list(tiles)).values()
        compile_all(requests, self.cache, jobs=self.jobs, progress=self.progress)

    def get(
        self,
        chip: Chip,
        kernel: Kernel,
        op: Op,
        dtype: str = "bfloat16",
        space: TileSpace | None = None,
        only: TileConfig | None = None,
    ) -> TileTable:
        """The table of a tile space (default the kernel's, with its default tiles), or of one tile."""
        space = _own(kernel, space)
        key = (chip.name, kernel.name, op, dtype, repr(only or sorted(space.items())))
        if key not in self._tables:
            tiles = [only] if only else _tiles(kernel, chip, op, dtype, space)
            requests = requests_for(kernel, chip, (op,), dtype, tiles)
            artifacts = compile_all(requests.values(), self.cache, jobs=self.jobs, progress=self.progress)
            rows = {tile: artifacts[r] for (_, tile), r in requests.items()}
            self._tables[key] = table_of(kernel, chip, op, rows)
        return self._tables[key]


def _own(kernel: Kernel, space: TileSpace | None) -> dict[str, tuple[Value, ...]]:
    """The part of a tile space that speaks of this kernel's fields."""
    return {k: tuple(v) for k, v in (space or {}).items() if k in kernel.tile_type.fields()}


def _tiles(kernel: Kernel, chip: Chip, op: Op, dtype: str, space: TileSpace | None) -> list[TileConfig]:
    """The tiles of a space that the kernel does not refuse at any size.

    The kernel's own space includes the tiles that an untuned user gets; a narrowed one means exactly its tiles.
    """
    problem = Problem(op=op, dtype=dtype)
    own = _own(kernel, space)
    every = list(kernel.tiles(own))
    good = [tile for tile in every if kernel.refuses(problem, tile, chip.target) is None]
    # If all are refused, the table says why.
    return list(dict.fromkeys([*(good or every), *([] if own else _defaults(kernel, chip, op, dtype))]))


def _defaults(kernel: Kernel, chip: Chip, op: Op, dtype: str) -> list[TileConfig]:
    """The tiles that an untuned user gets, over the range of rows."""
    problem = Problem(op=op, dtype=dtype)
    return [kernel.default_tile(problem, rows, chip.target) for rows in _DEFAULT_ROWS]


def table_of(kernel: Kernel, chip: Chip, op: Op, rows: Mapping[TileConfig, Artifact]) -> TileTable:
    """Columns of compiled tiles; those that the chip cannot launch are listed with their reasons."""
    refused = {t: reason for t, a in rows.items() if (reason := unlaunchable(a, t, chip)) is not None}
    good = {t: a for t, a in rows.items() if t not in refused}
    columns: dict[str, F64] = {}
    for field in kernel.tile_type.fields():
        columns[field] = np.array([getattr(t, field) for t in good], dtype=float)
    first = next(iter(good.values()), None)
    if first is not None and first.gpu is not None:
        facts = [a.gpu for a in good.values() if a.gpu is not None]
        columns["registers"] = np.array([f.registers for f in facts], dtype=float)
        columns["shared_bytes"] = np.array([f.shared_bytes for f in facts], dtype=float)
        columns["spill_bytes"] = np.array([f.spill_bytes for f in facts], dtype=float)
        columns["loop_instructions"] = np.array([f.loop_instructions for f in facts], dtype=float)
        columns["waves_per_simd"] = np.array([f.waves_per_simd or 0 for f in facts], dtype=float)
        columns["wide_mma"] = np.array([f.count("GMMA", "UTC") > 0 for f in facts], dtype=float)
        columns["narrow_mma"] = np.array([f.count(*_NARROW_MMA) > 0 for f in facts], dtype=float)
    return TileTable(kernel, chip, op, tuple(good), tuple(good.values()), columns, refused)
