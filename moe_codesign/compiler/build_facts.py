"""Compile the facts that ship with the package, and check a sample of those that are there.

``benchmarks/shipped/facts.py`` (``make facts``, ``make facts-check``) is the command.
"""

import itertools
import math
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from moe_codesign.chips import chip_names, load_chip
from moe_codesign.compiler.artifact import Artifact, Compiled, Outcome, Refused, Unanswered
from moe_codesign.compiler.build import Progress, compile_all
from moe_codesign.compiler.cache import ArtifactCache
from moe_codesign.compiler.request import Request, request
from moe_codesign.compiler.shipped import FOLDER, Key, ShippedTable, key_of, path_of, read_table, write_table
from moe_codesign.compiler.source_hash import source_hash
from moe_codesign.compiler.tile_table import DEFAULT_ROWS, tiles_of
from moe_codesign.models import models
from moe_codesign.versions import compiler_version
from moe_kernels.kernel import Kernel, Op, Problem
from moe_kernels.registry import kernels
from moe_kernels.tile import TileConfig

TIME_LIMIT_S = 900.0
"""Longer than a user waits: what is found here, nobody has to wait for again."""
TRIES = 3
"""A compiler that takes its process down so often on one tile, each time alone, does so because of the tile."""
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
            sizes.add((inner, shape.hidden_size) if self.op == "down" else (shape.hidden_size, inner))
        for (k, n), rows in itertools.product(sorted(sizes), _ROWS):
            problem = Problem(op=self.op, dtype=self.dtype, k=k, n=n)
            yield self.kernel.default_tile(problem, rows, self.target)

    def shipped(self) -> ShippedTable | None:
        """The table that is there, if it is of the kernel as it is now."""
        table = read_table(self.path)
        if table is None or table.source_hash != source_hash(self.kernel.sources):
            return None
        return table if table.fields == self.kernel.tile_type.fields() else None

    def write(self, artifacts: dict[Key, Artifact], compiler: str) -> None:
        """Write these artifacts as the file's."""
        fields = self.kernel.tile_type.fields()
        write_table(self.path, ShippedTable(source_hash(self.kernel.sources), compiler, fields, artifacts))


def every_file(folder: Path = FOLDER) -> list[FactsFile]:
    """The files of every kernel that is compiled ahead of time, target of the catalogue, data type and op."""
    targets: dict[str, set[str]] = {}
    for chip in map(load_chip, chip_names()):
        if chip.compiles and chip.target is not None:
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


def _rank(file: FactsFile) -> tuple[bool, int, bool]:
    """Missing files are made in this order: what is asked for most comes first, experts without a gate last."""
    dtype = _DTYPES.index(file.dtype) if file.dtype in _DTYPES else len(_DTYPES)
    return file.op == "up", dtype, file.op == "down"


@dataclass(frozen=True)
class Work:
    """What a file lacks: ``known`` artifacts are there already, ``missing`` ones are to be compiled."""

    file: FactsFile
    known: dict[Key, Artifact]
    missing: dict[Key, Request]
    written: bool
    """Whether the file on disk holds all that is known."""


def plan(files: Iterable[FactsFile], cache: ArtifactCache, *, recompile: bool = False) -> Iterator[Work]:
    """What each file has, from itself and from the cache, and what it lacks.

    A file that is complete stays as it is, whichever compiler made it. One that is not is completed by the compiler
    that is here: what another compiler made of it is then compiled again, since a file is by one compiler.

    Args:
        files: which.
        cache: artifacts that were compiled here.
        recompile: pass over what is shipped.
    """
    for file in files:
        requests = file.requests()
        table = None if recompile else file.shipped()
        there = dict(table.artifacts) if table is not None else {}
        if requests.keys() <= there.keys():
            yield Work(file, there, {}, written=True)
            continue
        if table is not None and table.compiler != compiler_version(file.kernel.backend):
            there = {}
        known = {key: there[key] for key in requests if key in there}
        for key, one in requests.items():
            outcome = known.get(key) or cache.get(one)
            if isinstance(outcome, Compiled | Refused):
                known[key] = _without_times(outcome)
        missing = {key: one for key, one in requests.items() if key not in known}
        yield Work(file, known, missing, written=known.keys() == there.keys())


def build(
    works: Iterable[Work],
    cache: ArtifactCache,
    *,
    jobs: int,
    progress: Callable[[Work], Progress] | None = None,
) -> list[str]:
    """Compile what is missing and write each file as soon as it is whole. Begin again at any time: nothing is lost.

    Args:
        works: see :func:`plan`.
        cache: where each artifact is kept until its file is written.
        jobs: compiler processes.
        progress: makes the callback that is called while a file's tiles are compiled.

    Returns:
        Files that could not be completed, each with the reason in a line.
    """
    incomplete = []
    for work in works:
        known = dict(work.known)
        outcomes = _compiled(work.missing.values(), cache, jobs, progress(work) if progress else None)
        for key, one in work.missing.items():
            outcome = outcomes[one]
            if isinstance(outcome, Unanswered):
                incomplete.append(f"{one.describe()}: {outcome.reason}")
            else:
                known[key] = _without_times(outcome)
        if known and not (work.written and known == work.known):
            work.file.write(known, compiler_version(work.file.kernel.backend))
    return incomplete


def _compiled(
    requests: Iterable[Request], cache: ArtifactCache, jobs: int, progress: Progress | None
) -> dict[Request, Outcome]:
    """The outcome of each compile. One that took its process down is tried again, in a process of its own each time.

    What happens :data:`TRIES` times is no chance: the compiler refuses the tile in its own way.
    """
    outcomes: dict[Request, Outcome] = compile_all(
        requests, cache, jobs=jobs, progress=progress, time_limit_s=TIME_LIMIT_S, recompile=True
    )
    for _ in range(TRIES - 1):
        crashed = [one for one, outcome in outcomes.items() if _crashed(outcome)]
        fresh = ArtifactCache(cache.folder.parent)
        outcomes |= compile_all(
            crashed, fresh, jobs=jobs, time_limit_s=TIME_LIMIT_S, recompile=True, fresh_processes=True
        )
    return {
        one: Refused(kind="refused", reason=outcome.reason, compiler=one.compiler) if _crashed(outcome) else outcome
        for one, outcome in outcomes.items()
    }


def _crashed(outcome: Outcome) -> TypeGuard[Unanswered]:
    return isinstance(outcome, Unanswered) and outcome.kind == "crashed"


def _without_times(artifact: Artifact) -> Artifact:
    """The artifact as it ships: how long one machine took is no fact of the binary."""
    if isinstance(artifact, Compiled):
        return Compiled(facts=artifact.facts, compiler=artifact.compiler)
    return Refused(kind=artifact.kind, reason=artifact.reason, compiler=artifact.compiler)


def stale_files(folder: Path = FOLDER) -> list[str]:
    """Shipped files that are not of the kernels as they are now, each with the reason in a line."""
    expected = {file.path: file for file in every_file(folder)}
    found = []
    for path in sorted(folder.glob("*/*/*.xz")):
        if path not in expected:
            found.append(f"{path.relative_to(folder)}: there is no such kernel, target, data type and op")
        elif expected[path].shipped() is None:
            found.append(f"{path.relative_to(folder)}: the kernel's source has changed; run make facts")
    return found


@dataclass(frozen=True)
class Difference:
    """One artifact that comes out otherwise than it was shipped."""

    what: str
    shipped: Artifact
    here: Outcome


def sample(files: Iterable[FactsFile], share: float, seed: int) -> list[tuple[FactsFile, list[Key]]]:
    """One file of each target, drawn by chance, and of it a share of the tiles, at least one.

    Over many runs every file has its turn. To compile a share of all files in each run would take an hour.
    """
    by_target: dict[str, list[FactsFile]] = {}
    for file in files:
        if file.path.exists():
            by_target.setdefault(file.target, []).append(file)
    chance = random.Random(seed)  # noqa: S311
    drawn = []
    for target in sorted(by_target):
        file = chance.choice(by_target[target])
        table = file.shipped()
        if table is not None:
            keys = sorted(table.artifacts)
            drawn.append((file, chance.sample(keys, math.ceil(share * len(keys)))))
    return drawn


def check(
    drawn: Iterable[tuple[FactsFile, list[Key]]], cache: ArtifactCache, *, jobs: int, progress: Progress | None = None
) -> list[Difference]:
    """Compile the drawn tiles again and compare. ``cache`` should be empty: what it holds is not compiled again.

    A file by another compiler than the one that is here differs by right; see :func:`other_compilers`.
    """
    wanted: dict[Request, tuple[str, Artifact]] = {}
    for file, keys in drawn:
        table, requests = file.shipped(), file.requests()
        assert table is not None
        for key in keys:
            one = requests.get(key) or request(
                file.kernel,
                file.op,
                file.kernel.tile_type.from_dict(dict(zip(table.fields, key, strict=True))),
                file.dtype,
                file.target,
            )
            wanted[one] = (one.describe(), table.artifacts[key])
    outcomes = _compiled(wanted, cache, jobs, progress)
    differences = []
    for one, (what, known) in wanted.items():
        outcome = outcomes[one]
        here = outcome if isinstance(outcome, Unanswered) else _without_times(outcome)
        if here != known:
            differences.append(Difference(what, known, here))
    return differences


def other_compilers(files: Iterable[FactsFile]) -> list[str]:
    """Files whose facts are by another compiler than the one that is here."""
    found = []
    for file in files:
        table, here = file.shipped(), compiler_version(file.kernel.backend)
        if table is not None and table.compiler != here:
            found.append(f"{file.label()}: by {table.compiler}, here is {here}")
    return found
