"""Whether the compiled facts that ship are of the kernels as they are, and come out the same when compiled again."""

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from moe_codesign.compiler.artifact import Artifact, CompileResult, Unanswered
from moe_codesign.compiler.build import Progress
from moe_codesign.compiler.build_facts import compile_patiently, without_times
from moe_codesign.compiler.cache import ArtifactCache
from moe_codesign.compiler.facts_file import FactsFile, every_file
from moe_codesign.compiler.request import Request, request
from moe_codesign.compiler.shipped import FOLDER, Key
from moe_codesign.versions import compiler_version


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


def lacking(files: Iterable[FactsFile]) -> list[tuple[FactsFile, int]]:
    """Files that lack tiles, each with how many."""
    found = []
    for file in files:
        table, requests = file.shipped(), file.requests()
        if lacks := len(requests.keys() - (table.artifacts.keys() if table is not None else ())):
            found.append((file, lacks))
    return found


@dataclass(frozen=True)
class Difference:
    """One artifact that comes out otherwise than it was shipped."""

    what: str
    shipped: Artifact
    here: CompileResult


def sample(files: Iterable[FactsFile], share: float, seed: int) -> list[tuple[FactsFile, list[Key]]]:
    """A share of the tiles of each target, drawn by chance from all of its files, at least one."""
    by_target: dict[str, list[tuple[FactsFile, Key]]] = {}
    for file in files:
        table = file.shipped()
        for key in sorted(table.artifacts) if table is not None else ():
            by_target.setdefault(file.target, []).append((file, key))
    chance = random.Random(seed)  # noqa: S311
    drawn: dict[Path, tuple[FactsFile, list[Key]]] = {}
    for _, tiles in sorted(by_target.items()):
        for file, key in chance.sample(tiles, math.ceil(share * len(tiles))):
            drawn.setdefault(file.path, (file, []))[1].append(key)
    return list(drawn.values())


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
    outcomes = compile_patiently(wanted, cache, jobs, progress)
    differences = []
    for one, (what, known) in wanted.items():
        outcome = outcomes[one]
        here = outcome if isinstance(outcome, Unanswered) else without_times(outcome)
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
