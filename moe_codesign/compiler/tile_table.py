"""One chip's compiled tiles of one kernel and op, as columns ready for arithmetic."""

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from moe_codesign.arrays import F64
from moe_codesign.chips import Chip
from moe_codesign.compiler import (
    ArtifactCache,
    Compiled,
    CompileResult,
    Request,
    compile_all,
    requests_for,
    unlaunchable,
)
from moe_codesign.compiler.artifact import Facts, GpuFacts
from moe_codesign.compiler.availability import missing_package
from moe_codesign.compiler.build import Progress
from moe_codesign.compiler.kernels import kernel_for
from moe_codesign.execution import LOCAL, Executor
from moe_codesign.versions import compiler_version
from moe_kernels.kernel import Kernel, Op, Problem
from moe_kernels.tile import TileConfig, Value

TileSpace = Mapping[str, tuple[Value, ...]]
DEFAULT_ROWS = (1, 8, 24, 48, 96, 256, 1024)
"""Rows per expert: one of each range that default rules tell apart."""


@dataclass(frozen=True)
class TileTable:
    """Tiles that compiled, one row each, and why the others did not.

    ``note`` says which compiler's facts these are, where another version of it is installed here.
    """

    kernel: Kernel
    chip: Chip
    op: Op
    tiles: tuple[TileConfig, ...]
    facts: tuple[Facts, ...]
    columns: dict[str, F64]
    refused: dict[TileConfig, str]
    note: str = ""

    def __len__(self) -> int:
        return len(self.tiles)

    def index(self, tile: TileConfig) -> int | None:
        """Row of a tile, or None if it did not compile or was not compiled."""
        return self._rows.get(tile)

    def rows(self, places: npt.NDArray[np.int64]) -> "TileTable":
        """The table of these rows, in this order."""
        columns = {name: values[places] for name, values in self.columns.items()}
        tiles = tuple(self.tiles[i] for i in places)
        facts = tuple(self.facts[i] for i in places)
        return replace(self, tiles=tiles, facts=facts, columns=columns)

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
    """Tile tables by (chip, kernel, op, dtype).

    Args:
        cache: where artifacts are kept that were compiled here.
        jobs: compiler processes.
        progress: called with how many tiles are compiled, of how many.
        recompile: compile here what the facts that come with the package would answer.
        executor: where the compiler processes are.
    """

    def __init__(
        self,
        cache: ArtifactCache | None = None,
        *,
        jobs: int = 1,
        progress: Progress | None = None,
        recompile: bool = False,
        executor: Executor = LOCAL,
    ) -> None:
        self.cache = cache or ArtifactCache()
        self.executor = executor
        self.jobs = jobs
        self.progress = progress
        self.recompile = recompile
        self._tables: dict[tuple[Chip, str, Op, str, str], TileTable] = {}

    def prepare(
        self, wanted: Iterable[tuple[Chip, TileSpace | None, Iterable[Op], str]], *, lenient: bool = False
    ) -> dict[Request, CompileResult]:
        """Compile every tile of those (chip, space, ops, dtype) that have a compiler, all in one pool.

        Default tiles are compiled along: what is searched is compared with them.

        Args:
            wanted: what tables will be asked for.
            lenient: pass over chips whose compiler is not installed here; :meth:`get` then raises for those that
                cannot be answered.

        Returns:
            What became of each tile.

        Raises:
            UserError: a compiler is not installed, and the tiles are not among the facts that come with the package.
        """
        requests: list[Request] = []
        for chip, space, ops, dtype in wanted:
            if chip.compiles:
                kernel = kernel_for(chip)
                if dtype in kernel.dtypes and not (lenient and missing_package(kernel.backend)):
                    for op in ops:
                        defaults = _defaults(kernel, chip.target, op, dtype)
                        tiles = dict.fromkeys([*tiles_of(kernel, chip.target, op, dtype, space), *defaults])
                        requests += requests_for(kernel, chip, (op,), dtype, tiles).values()
        return self.compile(requests)

    def compile(self, requests: Iterable[Request]) -> dict[Request, CompileResult]:
        """The outcome of each request; see :func:`moe_codesign.compiler.compile_all`."""
        return compile_all(
            requests,
            self.cache,
            jobs=self.jobs,
            progress=self.progress,
            recompile=self.recompile,
            executor=self.executor,
        )

    def has(self, chip: Chip, kernel: Kernel, op: Op, dtype: str) -> bool:
        """Whether :meth:`get` made the table of the kernel's own space before."""
        return _key(chip, kernel, op, dtype, {}, None) in self._tables

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
        key = _key(chip, kernel, op, dtype, space, only)
        if key not in self._tables:
            tiles = [only] if only else tiles_of(kernel, chip.target, op, dtype, space)
            requests = requests_for(kernel, chip, (op,), dtype, tiles)
            outcomes = self.compile(requests.values())
            rows = {tile: outcomes[r] for (_, tile), r in requests.items()}
            self._tables[key] = table_of(kernel, chip, op, rows)
        return self._tables[key]


def _key(
    chip: Chip, kernel: Kernel, op: Op, dtype: str, space: TileSpace, only: TileConfig | None
) -> tuple[Chip, str, Op, str, str]:
    return chip, kernel.name, op, dtype, repr(only or sorted(space.items()))


def _own(kernel: Kernel, space: TileSpace | None) -> dict[str, tuple[Value, ...]]:
    """The part of a tile space that speaks of this kernel's fields."""
    return {k: tuple(v) for k, v in (space or {}).items() if k in kernel.tile_type.fields()}


def tiles_of(
    kernel: Kernel, target: str | None, op: Op, dtype: str, space: TileSpace | None = None
) -> list[TileConfig]:
    """The tiles of a space that the kernel does not refuse at any size.

    The kernel's own space includes the tiles that an untuned user gets; a narrowed one means exactly its tiles. Where
    the kernel refuses all of them (a data type that the target lacks), all are returned: the table then says why.
    """
    problem = Problem(op=op, dtype=dtype)
    own = _own(kernel, space)
    every = list(kernel.tiles(own))
    good = [tile for tile in every if kernel.refuses(problem, tile, target) is None]
    return list(dict.fromkeys([*(good or every), *([] if own else _defaults(kernel, target, op, dtype))]))


def _defaults(kernel: Kernel, target: str | None, op: Op, dtype: str) -> list[TileConfig]:
    """The tiles that an untuned user gets, over the range of rows."""
    problem = Problem(op=op, dtype=dtype)
    return [kernel.default_tile(problem, rows, target) for rows in DEFAULT_ROWS]


def table_of(kernel: Kernel, chip: Chip, op: Op, rows: Mapping[TileConfig, CompileResult]) -> TileTable:
    """Columns of compiled tiles; those that the chip cannot launch are listed with their reasons."""
    refused = {t: reason for t, a in rows.items() if (reason := unlaunchable(a, t, chip)) is not None}
    good = {t: a for t, a in rows.items() if isinstance(a, Compiled) and t not in refused}
    columns: dict[str, F64] = {}
    for field in kernel.tile_type.fields():
        columns[field] = np.array([getattr(t, field) for t in good], dtype=float)
    gpu = [a.facts for a in good.values() if isinstance(a.facts, GpuFacts)]
    if gpu:
        columns["registers"] = np.array([f.registers for f in gpu], dtype=float)
        columns["shared_bytes"] = np.array([f.shared_bytes for f in gpu], dtype=float)
        columns["spill_bytes"] = np.array([f.spill_bytes for f in gpu], dtype=float)
        columns["loop_instructions"] = np.array([f.loop_instructions for f in gpu], dtype=float)
        columns["waves_per_simd"] = np.array([f.waves_per_simd or 0 for f in gpu], dtype=float)
        columns["wide_mma"] = _has(gpu, "GMMA", "UTC")
        columns["narrow_mma"] = _has(gpu, *_NARROW_MMA)
    facts = tuple(a.facts for a in good.values())
    note = compiler_note(kernel.backend, {a.compiler for a in good.values()})
    return TileTable(kernel, chip, op, tuple(good), facts, columns, refused, note)


def _has(binaries: Sequence[GpuFacts], *words: str) -> F64:
    """1 where a binary has an instruction with any of these words; tiles that differ at launch share a binary."""
    known = {id(facts): float(facts.count(*words) > 0) for facts in {id(f): f for f in binaries}.values()}
    return np.array([known[id(facts)] for facts in binaries])


def compiler_note(backend: str, compilers: Iterable[str]) -> str:
    """One line where facts are by another version of the backend's compiler than the one installed here."""
    here = compiler_version(backend)
    others = sorted(set(compilers) - {here})
    if not others:
        return ""
    if missing_package(backend):
        return f"compiled facts are by {' and '.join(others)}"
    return f"compiled facts are by {' and '.join(others)}; here is {here}, --recompile uses it"
