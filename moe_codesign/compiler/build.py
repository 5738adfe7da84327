"""Compile many requests in child processes with a time limit; every one ends as an artifact."""

import dataclasses
import tempfile
from collections.abc import Callable, Collection, Iterable
from typing import TypeVar, cast

from moe_codesign import execution
from moe_codesign.chips import Chip, CompiledChip, GpuChip
from moe_codesign.compiler.artifact import Artifact, GpuFacts, Outcome, Status
from moe_codesign.compiler.cache import ArtifactCache
from moe_codesign.compiler.function import CompiledFunction, FunctionRequest
from moe_codesign.compiler.request import CompileRequest, Request, request
from moe_codesign.compiler.worker import compile_one, start
from moe_codesign.errors import UserError
from moe_codesign.execution import Died, Done, Pool, Raised, TimedOut
from moe_kernels.kernel import Kernel, Op
from moe_kernels.tile import TileConfig

TIME_LIMIT_S = 180.0
"""One tile's compiles. The slowest honest one seen took 15 s; a hang takes for ever."""

Progress = Callable[[int, int], None]
_O = TypeVar("_O", bound=Outcome)


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
    requests: Iterable[CompileRequest[_O]],
    cache: ArtifactCache,
    *,
    jobs: int = 1,
    progress: Progress | None = None,
    time_limit_s: float = TIME_LIMIT_S,
    again: Collection[Status] = (),
    fresh_processes: bool = False,
) -> dict[CompileRequest[_O], _O]:
    """An artifact for every request: from the cache, else compiled in one of ``jobs`` child processes.

    Args:
        requests: what to compile.
        cache: where artifacts are kept.
        jobs: child processes.
        progress: told how many are done.
        time_limit_s: of one compile.
        again: outcomes in the cache that do not count.
        fresh_processes: one for each compile, so that none sees what another imported.

    A compile that hangs is killed and stored as ``timeout``; one that takes its process down (libtpu aborts on
    some inputs) is stored as ``crashed``. Each is in the cache as soon as it is known, so an interrupted run
    loses at most what was being compiled.
    """
    found: dict[CompileRequest[_O], _O] = {}
    missing: list[CompileRequest[_O]] = []
    for one in dict.fromkeys(requests):
        artifact = cache.get(one)
        if artifact is None or artifact.status in again:
            missing.append(one)
        else:
            found[one] = artifact
    if not missing:
        return found
    if progress:
        progress(0, len(missing))
    workers = max(1, min(jobs, len(missing)))
    with (
        tempfile.TemporaryDirectory(prefix="moe-codesign-", ignore_cleanup_errors=True) as scratch,
        Pool(workers, initializer=start, initargs=(scratch,), fresh_processes=fresh_processes) as pool,
    ):
        function = cast(Callable[[CompileRequest[_O]], _O], compile_one)  # its outcome is the request's own kind
        for done, (one, called) in enumerate(pool.map_unordered(function, missing, time_limit_s=time_limit_s), 1):
            artifact = _artifact(one, called)
            cache.put(one, artifact)
            found[one] = artifact
            if progress:
                progress(done, len(missing))
    return found


def compile_functions(
    requests: Iterable[FunctionRequest],
    cache: ArtifactCache,
    *,
    jobs: int = 1,
    progress: Progress | None = None,
    time_limit_s: float = TIME_LIMIT_S,
    again: Collection[Status] = (),
) -> dict[FunctionRequest, CompiledFunction]:
    """What became of each function; as :func:`compile_all`. One that was missing may be there now.

    Where libtpu dies, or takes too long, while it counts cycles of a JAX function, it is compiled again without, and a
    note says so.
    """
    requests = list(dict.fromkeys(requests))

    def run(wanted: Iterable[FunctionRequest], report: Progress | None) -> dict[FunctionRequest, CompiledFunction]:
        found = compile_all(
            wanted,
            cache,
            jobs=jobs,
            progress=report,
            time_limit_s=time_limit_s,
            again=(*again, "missing"),
            fresh_processes=True,
        )
        return {one: found[one] for one in wanted}

    found = run(requests, progress)
    plain = {
        one: dataclasses.replace(one, profile=False)
        for one, result in found.items()
        if result.status in ("crashed", "timeout") and not one.is_gpu
    }
    without = run(list(plain.values()), None)
    for one, other in plain.items():
        if without[other].status == "ok":
            note = f"no static cycles: {found[one].reason}"
            found[one] = dataclasses.replace(without[other], note=note)
        else:
            found[one] = without[other]
    return found


def unlaunchable(artifact: Artifact, tile: TileConfig, chip: Chip) -> str | None:
    """Why this chip cannot run the tile: the compiler's reason, or the limit of the chip that it breaks."""
    if artifact.status != "ok":
        return artifact.reason
    if artifact.gpu is None:
        return None
    return launch_limit(artifact.gpu, int(tile.as_dict()["num_warps"]), GpuChip.of(chip))


def launch_limit(gpu: GpuFacts, num_warps: int, chip: GpuChip) -> str | None:
    """The limit of the chip that a binary breaks, in one line."""
    core = chip.core
    if gpu.shared_bytes > core.shared_bytes_per_block:
        return (
            f"shared memory: needs {gpu.shared_bytes} bytes per block, {chip.name} allows "
            f"{core.shared_bytes_per_block}; use smaller blocks or fewer stages"
        )
    threads = num_warps * core.warp_size
    # AMD's compiler knows the threads of a block, and spills before it asks for more registers than there are.
    if chip.vendor == "nvidia" and gpu.registers * threads > core.registers:
        return (
            f"registers: needs {gpu.registers} x {threads} threads, {chip.name} has {core.registers} in a core; "
            "use smaller blocks"
        )
    return None


def _artifact(one: CompileRequest[_O], called: execution.Outcome[_O]) -> _O:
    match called:
        case Done(value):
            return value
        case TimedOut(limit_s):
            return one.outcome("timeout", str(called), compile_s=limit_s)
        case Died(exit_code):
            return one.outcome("crashed", f"the compiler took its process down (exit code {exit_code})")
        case Raised():
            return one.outcome("failed", str(called))
