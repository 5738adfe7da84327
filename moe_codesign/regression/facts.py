"""Compile what a suite names, and read each kernel, chip and tile as numbers that a baseline can hold.

Nothing in them depends on the machine: no path, time, or host.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from moe_codesign.chips import Chip, load_chip
from moe_codesign.compiler import Artifact, ArtifactCache, compile_all, compile_functions, requests_for, unlaunchable
from moe_codesign.compiler.artifact import GpuFacts, ProgramFacts, Status
from moe_codesign.compiler.build import Progress, launch_limit
from moe_codesign.compiler.function import CompiledFunction, FunctionRequest, function_request
from moe_codesign.compiler.sass import MATRIX_OPCODES
from moe_codesign.cost.estimate import rank_tiles
from moe_codesign.cost.gpu import blocks_of_core
from moe_codesign.cost.problem import GroupedGemm, layer_gemms
from moe_codesign.cost.table import kernel_for, table_of
from moe_codesign.cost.tpu import step_of
from moe_codesign.errors import UserError
from moe_codesign.models import find_model
from moe_codesign.regression.rules import Facts
from moe_codesign.regression.suite import KernelTable, ProblemTable, Suite
from moe_codesign.routing import Routing
from moe_codesign.workload import Workload, rank_work
from moe_kernels.kernel import Kernel, Op, Problem
from moe_kernels.tile import TileConfig

Place = tuple[str, str, str]
"""Kernel (with op and data type, of ours), chip, tile."""
_BY_CHANCE: tuple[Status, ...] = ("timeout", "crashed")
"""May be the machine's doing (busy, out of memory): tried again each time."""


@dataclass(frozen=True)
class Observation:
    """Facts of one place; ``reason`` where there are none."""

    place: Place
    facts: Facts
    reason: str = ""


def observe(
    suite: Suite, *, cache: ArtifactCache | None = None, jobs: int = 1, progress: Progress | None = None
) -> list[Observation]:
    """Facts of every kernel, chip and tile of a suite.

    Raises:
        UserError: a chip, kernel, model or tile field that does not exist.
    """
    cache = cache or ArtifactCache()
    # Everything is asked for before anything is compiled: a wrong name costs no work.
    ours = [one for table in suite.kernels if table.kernel is not None for one in _our_requests(table)]
    others = [one for table in suite.kernels if table.function is not None for one in _functions(suite, table)]
    artifacts = compile_all(
        [request for one in ours for request in one.requests.values()],
        cache,
        jobs=jobs,
        progress=progress,
        again=_BY_CHANCE,
    )
    functions = [request for _, _, request in others]
    compiled = compile_functions(functions, cache, jobs=jobs, progress=progress, again=_BY_CHANCE)
    found = [seen for one in ours for seen in one.observe(artifacts)]
    found += [_function_facts(place, chip, request, compiled[request]) for place, chip, request in others]
    return sorted(found, key=lambda seen: seen.place)


def places(suite: Suite) -> list[Place]:
    """What :func:`observe` will have facts of; nothing is compiled. Raises as that."""
    found = []
    for table in suite.kernels:
        if table.kernel is not None:
            found += [one.place(label) for one in _our_requests(table) for label in one.tiles]
        else:
            found += [place for place, _, _ in _functions(suite, table)]
    return found


@dataclass(frozen=True)
class _Ours:
    """One kernel of ours, op, type and chip, with its tiles by label."""

    table: KernelTable
    kernel: Kernel
    chip: Chip
    op: Op
    dtype: str
    tiles: dict[str, TileConfig]
    requests: dict[TileConfig, Any]

    def place(self, label: str) -> Place:
        return (f"{self.table.label} {self.op} {self.dtype}", self.chip.name, label)

    def observe(self, artifacts: dict[Any, Artifact]) -> Iterator[Observation]:
        rows = {tile: artifacts[request] for tile, request in self.requests.items()}
        times = self._times(rows)
        for label, tile in self.tiles.items():
            place, artifact = self.place(label), rows[tile]
            reason = unlaunchable(artifact, tile, self.chip)
            if artifact.status != "ok":
                yield _without(place, artifact.status, artifact.reason)
                continue
            facts: dict[str, float | str] = {"status": "ok" if reason is None else "unlaunchable"}
            if label != tile.label():
                facts["tile"] = tile.label()
            if artifact.gpu is not None:
                facts |= _gpu_facts(artifact.gpu, self.chip, int(tile.as_dict()["num_warps"]))
            if artifact.tpu is not None:
                facts["step_cycles"] = round(step_of(artifact, self.chip).cycles["issue and drain"], 1)
                facts |= _program_facts([artifact.tpu.program])
            if self.kernel.memory_bytes is not None:
                facts["vmem_bytes"] = self.kernel.memory_bytes(Problem(op=self.op, dtype=self.dtype), tile)
            yield Observation(place, facts | times.get(tile, {}), reason or "")

    def _times(self, rows: dict[TileConfig, Artifact]) -> dict[TileConfig, dict[str, float]]:
        """Modelled time of each listed problem with each tile that can run it."""
        table = table_of(self.kernel, self.chip, self.op, rows)
        if not len(table):
            return {}
        found: dict[TileConfig, dict[str, float]] = {tile: {} for tile in table.tiles}
        for problem in self.table.problems:
            gemm = _gemm(problem, self.op, self.dtype)
            if gemm is None:
                continue
            refused = table.unsupported(gemm.problem)
            for i, us in enumerate(rank_tiles(table, gemm).total_us):
                if i not in refused:
                    found[table.tiles[i]][f"latency_us at {problem.label()}"] = float(f"{us:.5g}")
        return found


def _gemm(problem: ProblemTable, op: Op, dtype: str) -> GroupedGemm | None:
    """The problem's GEMM of that op, None if it has none."""
    workload = Workload(
        name="regress",
        num_tokens=problem.num_tokens,
        dtype=dtype,
        routing=Routing.parse(problem.routing),
        tp=problem.tp,
        ep=problem.ep,
        seed=0,
    )
    gemms = layer_gemms(rank_work(find_model(problem.model), workload))
    return next((gemm for gemm in gemms if gemm.op == op), None)


def _our_requests(table: KernelTable) -> Iterator[_Ours]:
    for name in table.chips:
        chip = load_chip(name)
        kernel = kernel_for(chip, str(table.kernel))
        for dtype in table.dtypes:
            if dtype not in kernel.dtypes:
                raise UserError(f"dtypes of {table.label}", value=dtype, mend="use one of " + ", ".join(kernel.dtypes))
            for op in table.ops:
                for problem in table.problems:
                    _gemm(problem, op, dtype)
                tiles = _tiles(table, kernel, chip, op, dtype)
                requests = requests_for(kernel, chip, (op,), dtype, tiles.values())
                yield _Ours(table, kernel, chip, op, dtype, tiles, {tile: r for (_, tile), r in requests.items()})


def _tiles(table: KernelTable, kernel: Kernel, chip: Chip, op: Op, dtype: str) -> dict[str, TileConfig]:
    """By label. A default tile is called by the rows that it is the default for: it may become another."""
    problem = Problem(op=op, dtype=dtype)
    rows = table.rows or ([] if table.tiles else [128])
    found = {f"default for {n} rows": kernel.default_tile(problem, float(n), chip.target) for n in rows}
    base = kernel.default_tile(problem, 128.0, chip.target).as_dict()
    try:
        given = [kernel.tile_type.from_dict({**base, **tile}) for tile in table.tiles]
    except ValueError as error:
        raise UserError(f"tiles of {table.label}: {error}") from None
    return found | {tile.label(): tile for tile in given}


def _functions(suite: Suite, table: KernelTable) -> Iterator[tuple[Place, Chip, FunctionRequest]]:
    for name in table.chips:
        chip = load_chip(name)
        if not chip.compiles or chip.target is None:
            raise UserError(f"chip {chip.name} has no compiler here", mend="leave it out")
        on_gpu = chip.backend == "triton"
        if on_gpu != bool(table.signature):
            kind = "a Triton kernel" if table.signature else "a JAX function"
            raise UserError(f"{table.label} is {kind}, which {chip.name} does not run", mend="leave the chip out")
        for tile in table.tiles or [{}]:
            if on_gpu:
                # What is in capitals is a constant, what is not an option of the compiler, as in every Triton kernel.
                options = {key: value for key, value in tile.items() if key in _TRITON_OPTIONS}
                constants = {**table.constants, **{key: value for key, value in tile.items() if key not in options}}
            else:
                options, constants = {}, {**table.constants, **tile}
            request = function_request(
                str(table.function),
                chip.target,
                arguments=table.arguments,
                signature={key: text for key, text in table.signature.items() if key not in constants},
                constants=constants,
                options=options,
                folder=suite.path.parent,
            )
            label = " ".join(f"{key}={value}" for key, value in sorted(tile.items()))
            yield (table.label, chip.name, label), chip, request


_TRITON_OPTIONS = ("num_warps", "num_stages", "num_ctas", "maxnreg", "waves_per_eu", "matrix_instr_nonkdim", "kpack")


def _function_facts(place: Place, chip: Chip, request: FunctionRequest, result: CompiledFunction) -> Observation:
    if result.status != "ok":
        return _without(place, result.status, result.reason)
    facts: dict[str, float | str] = {"status": "ok"}
    if result.gpu is not None:
        num_warps = json.loads(request.options).get("num_warps", 4)
        if limit := launch_limit(result.gpu, num_warps, chip):
            return Observation(place, {"status": "unlaunchable", **_gpu_facts(result.gpu, chip, num_warps)}, limit)
        facts |= _gpu_facts(result.gpu, chip, num_warps)
    else:
        if all(kernel.cycles is not None for kernel in result.kernels):
            facts["cycles"] = sum(kernel.cycles or 0 for kernel in result.kernels)
        facts |= _program_facts([kernel.program for kernel in result.kernels])
    return Observation(place, facts, result.note)


def _without(place: Place, status: str, reason: str) -> Observation:
    # Paths and addresses are this machine's; the facts are everyone's.
    plain = re.sub(r"0x[0-9a-f]+", "0x..", re.sub(r"(?:/[^\s/'\"]+){2,}", "/..", reason))
    return Observation(place, {"status": status, "reason": plain}, reason)


def _gpu_facts(gpu: GpuFacts, chip: Chip, num_warps: int) -> dict[str, float]:
    columns = (np.array([float(v or 0)]) for v in (num_warps, gpu.registers, gpu.shared_bytes, gpu.waves_per_simd))
    loads = {op: n for op, n in gpu.instructions.items() if op.startswith(_GLOBAL_LOADS)}
    facts: dict[str, float] = {
        "registers": gpu.registers,
        "spill_bytes": gpu.spill_bytes,
        "shared_bytes": gpu.shared_bytes,
        "resident_blocks": int(blocks_of_core(chip, *columns)[0]),
        "code_bytes": gpu.code_bytes,
        "instructions": sum(gpu.instructions.values()),
        "matrix_instructions": sum(n for op, n in gpu.instructions.items() if MATRIX_OPCODES.match(op)),
        "async_copies": gpu.count("LDGSTS", "UTMALDG", "UBLKCP", "load_lds"),
        "narrow_loads": sum(n for op, n in loads.items() if not any(word in op for word in _WIDE)),
    }
    if gpu.loop_matrix:
        facts["instructions_per_matrix"] = round(gpu.loop_instructions / gpu.loop_matrix, 2)
    return facts


_GLOBAL_LOADS = ("LDG.", "LDGSTS.", "global_load", "buffer_load")
_WIDE = (".128", ".256", "x4", "b128")
"""Words of a load of 16 bytes a thread or more."""


def _program_facts(programs: list[ProgramFacts]) -> dict[str, float]:
    return {
        "bundles": sum(p.bundles for p in programs),
        "spills": sum(p.spills for p in programs),
        "dma_bytes": sum(p.dma_bytes for p in programs),
        "matrix_instructions": sum(n for p in programs for op, n in p.instructions.items() if op.startswith("vmatmul")),
    }
