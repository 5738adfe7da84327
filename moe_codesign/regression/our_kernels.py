"""Facts of this project's kernels under test."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from moe_codesign.chips import Chip, GpuChip, TpuChip, load_chips
from moe_codesign.compiler import Compiled, CompileResult, Request, requests_for, unlaunchable
from moe_codesign.compiler.artifact import GpuFacts, TpuFacts
from moe_codesign.compiler.kernels import kernel_for
from moe_codesign.compiler.tile_table import table_of
from moe_codesign.cost.ours.model import rank_tiles
from moe_codesign.cost.ours.tpu_step import step_of
from moe_codesign.domain.grouped_gemm import GroupedGemm, layer_gemms
from moe_codesign.domain.rank import rank_work
from moe_codesign.domain.workload import Workload
from moe_codesign.errors import UserError
from moe_codesign.models import find_model
from moe_codesign.regression.facts import Fact, Facts, Place
from moe_codesign.regression.readings import Observation, gpu_facts, program_facts, without
from moe_codesign.regression.suite import OurKernel, ProblemTable
from moe_kernels.kernel import Kernel, Op, Problem
from moe_kernels.tile import TileConfig


@dataclass(frozen=True)
class OurCompiles:
    """The compiles behind one kernel of this project, GEMM, data type and chip: a tile each, by its label."""

    table: OurKernel
    kernel: Kernel
    chip: Chip
    op: Op
    dtype: str
    tiles: dict[str, TileConfig]
    requests: dict[TileConfig, Request]

    def place(self, label: str) -> Place:
        """Where the facts of a tile stand."""
        return Place(self.table.name_of(self.op, self.dtype), self.chip.name, label)

    def observe(self, outcomes: Mapping[Request, CompileResult]) -> Iterator[Observation]:
        """The facts of every tile, or why it has no facts; ``outcomes`` are of the suite's requests."""
        rows = {tile: outcomes[request] for tile, request in self.requests.items()}
        times = self._times(rows)
        for label, tile in self.tiles.items():
            place, outcome = self.place(label), rows[tile]
            reason = unlaunchable(outcome, tile, self.chip)
            if not isinstance(outcome, Compiled):
                yield without(place, outcome.status, outcome.reason)
                continue
            numbers: dict[Fact, float] = {}
            if isinstance(outcome.facts, GpuFacts):
                numbers |= gpu_facts(outcome.facts, GpuChip.of(self.chip), int(tile.as_dict()["num_warps"]))
            if isinstance(outcome.facts, TpuFacts):
                step = step_of(self.requests[tile], outcome.facts, TpuChip.of(self.chip))
                numbers[Fact("step_cycles")] = round(step.cycles["issue and drain"], 1)
                numbers |= program_facts([outcome.facts.program])
            if self.kernel.memory_bytes is not None:
                numbers[Fact("vmem_bytes")] = self.kernel.memory_bytes(Problem(op=self.op, dtype=self.dtype), tile)
            facts = Facts(
                "ok" if reason is None else "unlaunchable",
                numbers | times.get(tile, {}),
                tile=None if label == tile.label() else tile.label(),
            )
            yield Observation(place, facts, reason or "")

    def _times(self, rows: dict[TileConfig, CompileResult]) -> dict[TileConfig, dict[Fact, float]]:
        """Modelled time of each listed problem with each tile that can run it."""
        table = table_of(self.kernel, self.chip, self.op, rows)
        if not len(table):
            return {}
        found: dict[TileConfig, dict[Fact, float]] = {tile: {} for tile in table.tiles}
        for problem in self.table.problems:
            gemm = _gemm(problem, self.op, self.dtype)
            if gemm is None:
                continue
            refused = table.unsupported(gemm.problem)
            for i, us in enumerate(rank_tiles(table, gemm).total_us):
                if i not in refused:
                    found[table.tiles[i]][problem.time] = float(f"{us:.5g}")
        return found


def _gemm(problem: ProblemTable, op: Op, dtype: str) -> GroupedGemm | None:
    """The problem's GEMM of that op, None if it has none."""
    workload = Workload(
        name="regress",
        num_tokens=problem.num_tokens,
        dtype=dtype,
        routing=problem.routing,
        tp=problem.tp,
        ep=problem.ep,
        seed=0,
    )
    gemms = layer_gemms(rank_work(find_model(problem.model), workload))
    return next((gemm for gemm in gemms if gemm.op == op), None)


def our_compiles(table: OurKernel) -> Iterator[OurCompiles]:
    """The compiles of a table of our kernels: one for each chip, GEMM, data type and tile."""
    for chip in load_chips(table.chips):
        kernel = kernel_for(chip, table.kernel)
        for dtype in table.dtypes:
            if dtype not in kernel.dtypes:
                raise UserError(f"dtypes of {table.label}", value=dtype, fix="use one of " + ", ".join(kernel.dtypes))
            for op in table.ops:
                for problem in table.problems:
                    _gemm(problem, op, dtype)
                tiles = _tiles(table, kernel, chip, op, dtype)
                requests = requests_for(kernel, chip, (op,), dtype, tiles.values())
                yield OurCompiles(table, kernel, chip, op, dtype, tiles, {tile: r for (_, tile), r in requests.items()})


def _tiles(table: OurKernel, kernel: Kernel, chip: Chip, op: Op, dtype: str) -> dict[str, TileConfig]:
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
