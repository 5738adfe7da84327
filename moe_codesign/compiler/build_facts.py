"""Compile the facts that ship with the package; ``benchmarks/shipped/facts.py`` (``make facts``) is the command."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeGuard

from moe_codesign.compiler.artifact import Artifact, Compiled, CompileResult, Refused, Unanswered
from moe_codesign.compiler.build import Progress, compile_all
from moe_codesign.compiler.cache import ArtifactCache
from moe_codesign.compiler.facts_file import FactsFile
from moe_codesign.compiler.program import makes_programs, program_hash
from moe_codesign.compiler.request import Request
from moe_codesign.compiler.shipped import Key
from moe_codesign.compiler.source_hash import source_hash
from moe_codesign.compiler.worker import silence
from moe_codesign.execution import Done, Pool
from moe_codesign.versions import compiler_version
from moe_kernels.tile import TritonTile

TIME_LIMIT_S = 900.0
"""Longer than a user waits: what is found here, nobody has to wait for again."""
TRIES = 3
"""A compiler that takes its process down so often on one tile, each time alone, does so because of the tile."""


@dataclass(frozen=True)
class Work:
    """What a file lacks.

    Args:
        file: which.
        known: artifacts that are there already.
        programs: hashes of programs that are known.
        missing: what is to be compiled.
        written: the file on disk is as it is to be.
    """

    file: FactsFile
    known: dict[Key, Artifact]
    programs: dict[Key, str]
    missing: dict[Key, Request]
    written: bool = False


def plan(files: Iterable[FactsFile], cache: ArtifactCache, *, jobs: int, recompile: bool = False) -> Iterator[Work]:
    """What each file has, from itself and from the cache, and what it lacks.

    A file that is complete and of the kernel's source stays as it is, whichever compiler made it. Any other is
    completed by the compiler that is here: what another compiler made of it is then compiled again, since a file is by
    one compiler. Of a file of another source those tiles are kept whose program is the same.

    Args:
        files: which.
        cache: artifacts that were compiled here.
        jobs: processes that make programs.
        recompile: pass over what is shipped.
    """
    for file in files:
        requests, here = file.requests(), compiler_version(file.kernel.backend)
        table = None if recompile else file.table()
        current = table is not None and table.source_hash == source_hash(file.kernel.sources)
        known: dict[Key, Artifact] = {}
        programs: dict[Key, str] = {}
        if table is not None and current and requests.keys() <= table.artifacts.keys():
            has_programs = bool(table.programs) or not makes_programs(file.kernel)
            if has_programs or table.compiler != here:
                yield Work(file, dict(table.artifacts), dict(table.programs), {}, written=True)
                continue
        if table is not None and table.compiler == here:
            if current:
                programs = dict(table.programs)
                same = table.artifacts.keys() & requests.keys()
            else:
                programs = programs_of({key: requests[key] for key in requests if key in table.programs}, jobs)
                same = {key for key, program in programs.items() if program == table.programs[key]}
            known = {key: table.artifacts[key] for key in requests if key in same}
        for key, one in requests.items():
            outcome = known.get(key) or cache.get(one)
            if isinstance(outcome, Compiled | Refused):
                known[key] = without_times(outcome)
        yield Work(file, known, programs, {key: one for key, one in requests.items() if key not in known})


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
        Tiles that could not be compiled, each with the reason in a line.
    """
    incomplete = []
    for work in works:
        known = dict(work.known)
        outcomes = compile_patiently(work.missing.values(), cache, jobs, progress(work) if progress else None)
        for key, one in work.missing.items():
            outcome = outcomes[one]
            if isinstance(outcome, Unanswered):
                incomplete.append(f"{one.describe()}: {outcome.reason}")
            else:
                known[key] = without_times(outcome)
        if known and not work.written:
            requests = work.file.requests()
            unknown = {key: requests[key] for key in known if key not in work.programs}
            programs = work.programs | programs_of(unknown, jobs)
            work.file.write(known, compiler_version(work.file.kernel.backend), programs)
    return incomplete


def programs_of(requests: Mapping[Key, Request], jobs: int) -> dict[Key, str]:
    """Hash of the program of each tile that has one; see :func:`moe_codesign.compiler.program.program_hash`."""
    keys = {one: key for key, one in requests.items() if isinstance(one.tile, TritonTile)}
    if not keys:
        return {}
    with Pool(max(1, min(jobs, len(keys))), initializer=silence) as pool:
        called = dict(pool.map_unordered(program_hash, keys, time_limit_s=TIME_LIMIT_S))
    return {keys[one]: done.value for one, done in called.items() if isinstance(done, Done) and done.value}


def compile_patiently(
    requests: Iterable[Request], cache: ArtifactCache, jobs: int, progress: Progress | None
) -> dict[Request, CompileResult]:
    """The outcome of each compile. One that took its process down is tried again, in a process of its own each time.

    What happens :data:`TRIES` times is no chance: the compiler refuses the tile in its own way.
    """
    outcomes: dict[Request, CompileResult] = compile_all(
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


def _crashed(outcome: CompileResult) -> TypeGuard[Unanswered]:
    return isinstance(outcome, Unanswered) and outcome.kind == "crashed"


def without_times(artifact: Artifact) -> Artifact:
    """The artifact as it ships: how long one machine took is no fact of the binary."""
    if isinstance(artifact, Compiled):
        return Compiled(facts=artifact.facts, compiler=artifact.compiler)
    return Refused(kind=artifact.kind, reason=artifact.reason, compiler=artifact.compiler)
