"""Find what is known of many requests, and compile the rest in child processes with a time limit."""

import builtins
import dataclasses
import signal
from collections.abc import Callable, Iterable
from typing import TypeVar

from moe_codesign import execution
from moe_codesign.chips import Chip, CompiledChip, GpuChip
from moe_codesign.compiler import shipped
from moe_codesign.compiler.artifact import Compiled, CompileResult, GpuFacts, Refused, Unanswered
from moe_codesign.compiler.availability import require_compiler
from moe_codesign.compiler.cache import ArtifactCache
from moe_codesign.compiler.function import FunctionRequest
from moe_codesign.compiler.request import CompileRequest, Request, request
from moe_codesign.compiler.worker import compile_one, lacks_room, start
from moe_codesign.errors import UserError
from moe_codesign.execution import LOCAL, Died, Done, Executor, Raised, TimedOut, WorkerPool
from moe_kernels.kernel import Kernel, Op
from moe_kernels.tile import TileConfig

TIME_LIMIT_S = 180.0
"""One tile's compiles. The slowest honest one seen took 15 s; a hang takes for ever."""

_OF_THE_MACHINE = {
    name for name, kind in vars(builtins).items() if isinstance(kind, type) and issubclass(kind, OSError | MemoryError)
}
"""Names of the exceptions that say what the machine did."""
Progress = Callable[[int, int], None]
_R = TypeVar("_R", Request, FunctionRequest)
_ABORTED = Died(-signal.SIGABRT)
"""A check of the compiler's own failed. Whoever kills a process from outside sends another signal."""


def requests_for(
    kernel: Kernel,
    chip: Chip,
    ops: Iterable[Op],
    dtype: str,
    tiles: Iterable[TileConfig],
) -> dict[tuple[Op, TileConfig], Request]:
    """The compile behind each (op, tile). Tiles that differ only at launch share one.

    Raises:
        UserError: no compiler for this chip runs here.
    """
    if not isinstance(chip, CompiledChip):
        raise UserError(f"chip {chip.name} has no compiler here", fix="its times are graded datasheet or measured")
    if not chip.runs(kernel.backend):
        raise UserError(f"kernel {kernel.name} does not run on {chip.name}", fix=f"use a {chip.backend} kernel")
    tiles = list(tiles)
    return {(op, tile): request(kernel, op, tile, dtype, chip.target) for op in ops for tile in tiles}


def compile_all(
    requests: Iterable[_R],
    cache: ArtifactCache,
    *,
    jobs: int = 1,
    progress: Progress | None = None,
    time_limit_s: float = TIME_LIMIT_S,
    recompile: bool = False,
    fresh_processes: bool = False,
    executor: Executor = LOCAL,
) -> dict[_R, CompileResult]:
    """The outcome of every request.

    What the kernel itself refuses needs no compiler. The rest is looked for in the cache (compiled here, of the same
    source, by the compiler that is here), then in the facts that come with the package (of the same source, by
    whichever compiler), and else compiled in one of ``jobs`` child processes.

    A compile that hangs is killed at its limit, and one may take its process down. Both are answered as
    :class:`Unanswered`, and tried again by the next command: the machine may have been busy or full. A compiler that
    aborts by itself (libtpu does on some tiles) is tried once more at once, in a fresh process, and a tile on which it
    aborts again is refused. Each artifact is in the cache as soon as it is known, so an interrupted run loses at most
    what was being compiled.

    Args:
        requests: what to compile.
        cache: where artifacts are kept.
        jobs: child processes.
        progress: called with how many are done, of how many.
        time_limit_s: of one compile.
        recompile: leave out the facts that come with the package.
        fresh_processes: one for each compile, so that none sees what another imported.
        executor: where the child processes are.

    Raises:
        UserError: something must be compiled, and its compiler is not installed here.
    """
    found: dict[_R, CompileResult] = {}
    missing: list[_R] = []
    for one in dict.fromkeys(requests):
        known = _known(one, cache, recompile)
        if known is None:
            missing.append(one)
        else:
            found[one] = known
    for one in missing:
        require_compiler(one.target, one.describe(), recompile=recompile or isinstance(one, FunctionRequest))
    if not missing:
        return found
    if progress:
        progress(0, len(missing))
    workers = max(1, min(jobs, len(missing)))
    calls = 1 if fresh_processes else None
    plain = not any(isinstance(one, FunctionRequest) for one in missing)
    with executor.pool(workers, initializer=start, initargs=(plain,), calls_per_process=calls, scratch=True) as pool:
        done = 0
        aborted: list[_R] = []

        def keep(one: _R, outcome: CompileResult) -> None:
            nonlocal done
            found[one] = outcome
            cache.put(one, outcome)
            done += 1
            if progress:
                progress(done, len(missing))

        for one, called in pool.map_unordered(compile_one, missing, time_limit_s=time_limit_s):
            if called == _ABORTED and isinstance(one, Request):
                aborted.append(one)
            else:
                keep(one, _outcome(one, called))
        for one, called in pool.map_unordered(compile_one, aborted, time_limit_s=time_limit_s):
            keep(one, _of_abort(one, pool) if called == _ABORTED else _outcome(one, called))
    return found


def _of_abort(one: CompileRequest, pool: WorkerPool) -> CompileResult:
    """What to make of a compiler that has aborted twice: the tile's doing, unless it had no room for what it writes."""
    lacks = pool.call(lacks_room, time_limit_s=TIME_LIMIT_S)
    if not isinstance(lacks, Done):
        return Unanswered(kind="crashed", reason=f"the compiler aborts, and so does what looks why ({lacks})")
    if lacks.value is not None:
        return Unanswered(kind="crashed", reason=f"the compiler aborts, and {lacks.value}")
    return Refused(kind="failed", reason="the compiler aborts on this tile", compiler=one.compiler)


def _known(one: CompileRequest, cache: ArtifactCache, recompile: bool) -> CompileResult | None:
    if isinstance(one, Request) and (reason := one.refusal()):
        return Refused(kind="refused", reason=reason)
    known = cache.get(one)
    if known is None and isinstance(one, Request) and not recompile:
        return shipped.find(one)
    return known


def compile_functions(
    requests: Iterable[FunctionRequest],
    cache: ArtifactCache,
    *,
    jobs: int = 1,
    progress: Progress | None = None,
    time_limit_s: float = TIME_LIMIT_S,
) -> dict[FunctionRequest, CompileResult]:
    """What became of each function; as :func:`compile_all`.

    Where libtpu dies, or takes too long, while it counts cycles of a JAX function, it is compiled again without, and a
    note says so.
    """
    requests = list(dict.fromkeys(requests))

    def run(wanted: Iterable[FunctionRequest], report: Progress | None) -> dict[FunctionRequest, CompileResult]:
        found = compile_all(wanted, cache, jobs=jobs, progress=report, time_limit_s=time_limit_s, fresh_processes=True)
        return {one: found[one] for one in wanted}

    found = run(requests, progress)
    plain = {
        one: dataclasses.replace(one, profile=False)
        for one, result in found.items()
        if isinstance(result, Unanswered) and result.kind != "missing" and not one.is_gpu
    }
    without = run(list(plain.values()), None)
    for one, other in plain.items():
        result, first = without[other], found[one]
        if isinstance(result, Compiled) and isinstance(first, Unanswered):
            result = dataclasses.replace(result, note=f"no static cycles: {first.reason}")
        found[one] = result
    return found


def unlaunchable(outcome: CompileResult, tile: TileConfig, chip: Chip) -> str | None:
    """Why this chip cannot run the tile: the compiler's reason, or the limit of the chip that it breaks."""
    if not isinstance(outcome, Compiled):
        return outcome.reason
    if not isinstance(outcome.facts, GpuFacts):
        return None
    return launch_limit(outcome.facts, int(tile.as_dict()["num_warps"]), GpuChip.of(chip))


def launch_limit(gpu: GpuFacts, num_warps: int, chip: GpuChip) -> str | None:
    """The limit of the chip that a binary breaks, in one line."""
    core = chip.core
    if gpu.shared_bytes > core.shared_bytes_per_block:
        return (
            f"shared memory: needs {gpu.shared_bytes} bytes per block, {chip.name} allows "
            f"{core.shared_bytes_per_block}; use smaller blocks or fewer stages"
        )
    threads = num_warps * core.warp_size
    # AMD's compiler gives waves_per_simd itself, for which it has seen to the registers.
    if gpu.waves_per_simd is None and gpu.registers * threads > core.registers:
        return (
            f"registers: needs {gpu.registers} x {threads} threads, {chip.name} has {core.registers} in a core; "
            "use smaller blocks"
        )
    return None


def _outcome(one: CompileRequest, called: execution.CallResult[CompileResult]) -> CompileResult:
    match called:
        case Done(value):
            return value
        case TimedOut():
            return Unanswered(kind="timeout", reason=str(called))
        case Died(exit_code):
            return Unanswered(kind="crashed", reason=f"the compiler took its process down (exit code {exit_code})")
        case Raised(kind) if kind in _OF_THE_MACHINE:
            # The process failed before the compiler answered, for example because its temporary files had no room.
            return Unanswered(kind="crashed", reason=str(called))
        case Raised():
            return Refused(kind="failed", reason=str(called), compiler=one.compiler)
