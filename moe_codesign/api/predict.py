"""Times for a table of problems: each row answered, or told in its own row why not."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from moe_codesign.chips import Chip, GpuChip, load_chip
from moe_codesign.compiler.build import Progress
from moe_codesign.compiler.kernels import kernel_for
from moe_codesign.compiler.tile_table import Tables
from moe_codesign.cost.estimate import Estimate, NoTileError, estimate_gemm, estimate_layer
from moe_codesign.cost.stacks import shipped
from moe_codesign.cost.stacks.columns import check, columns_of
from moe_codesign.domain.dtype import DTYPE_BYTES
from moe_codesign.domain.grouped_gemm import GroupedGemm
from moe_codesign.domain.rank import rank_work
from moe_codesign.domain.shape import MoEShape
from moe_codesign.domain.timing import Timing
from moe_codesign.domain.token_counts import token_counts
from moe_codesign.domain.workload import Workload
from moe_codesign.errors import UserError
from moe_codesign.formats.problem_rows import Row, flag, layer_of, missing, routing_of, routing_text, text, whole
from moe_codesign.formats.tables import check_output, read_table, write_table
from moe_codesign.formats.tile_columns import gemm_tile, tiles_of
from moe_codesign.formats.tuned_files import STACKS, tuned_tiles
from moe_kernels.kernel import Op, up_op
from moe_kernels.tile import TileConfig

OUTPUT = ("latency_us", "low_us", "high_us", "grade", "bound_us", "limiter", "tile", "warning", "error")
_INPUT = frozenset(
    {"chip", "hidden_size", "moe_intermediate_size", "num_experts", "num_experts_per_tok", "n_shared_experts"}
    | {"gated", "num_tokens", "dtype", "routing", "seed", "tp", "ep", "stack", "kernel", "tile"}
    | {"op", "m", "k", "n", "groups"}
)
_ROW_ERRORS = (ValueError, OverflowError, MemoryError, OSError)
"""What absurd numbers raise further down: one row's error, not the table's."""
_OPS = ("fused_moe", "grouped_gemm")


def predict_rows(
    rows: Sequence[Row],
    tables: Tables,
    *,
    explain: bool = False,
    tuned: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Row]:
    """Answer every problem, in order.

    Args:
        rows: one problem each, with the columns of README "predict". Values may be text, as in CSV.
        tables: compiled tiles; what the rows need and the cache lacks is compiled first, in one go.
        explain: add ``parts_us``, JSON of where the time goes.
        tuned: folder of a stack's tuned files, which come before its default rule.
        progress: called with (rows done, rows).

    Returns:
        The rows with OUTPUT columns added; ``error`` is empty where there is an answer. ``routing`` says which routing
        was taken where the row named none.
    """
    ours = [row for row in rows if text(row, "stack", "ours") == "ours"]
    _prepare(ours, tables)
    keys = [json.dumps({k: str(v) for k, v in row.items() if k in _INPUT}, sort_keys=True) for row in rows]
    distinct = dict(zip(keys, rows, strict=True))
    known: dict[str, Row] = {}
    of_stacks: dict[str, _Problem] = {}
    for number, (key, row) in enumerate(distinct.items(), 1):
        try:
            problem = _Problem.parse(row)
            if problem.stack == "ours":
                known[key] = _answer(problem.estimate(tables), explain)
            else:
                # Loads are counted here, where what is wrong with one row is told in it alone; they are kept.
                columns_of([problem.layer] if problem.layer else [])
                of_stacks[key] = problem
        except (UserError, NoTileError, *_ROW_ERRORS) as error:
            known[key] = _failed(row, error)
        if progress and (number % 200 == 0 or number == len(distinct)):
            progress(number, len(distinct))
    for same in _by_calibration(of_stacks):
        try:
            answers = _stack_answers([of_stacks[key] for key in same], explain, tuned)
        except (UserError, *_ROW_ERRORS) as error:
            answers = [_failed(distinct[key], error) for key in same]
        known.update(zip(same, answers, strict=True))
    return [{**row, "routing": routing_text(row), **known[key]} for key, row in zip(keys, rows, strict=True)]


def _by_calibration(problems: dict[str, "_Problem"]) -> list[list[str]]:
    """Keys of problems that one calibration answers together."""
    groups: dict[tuple[int, str, str], list[str]] = {}
    for key, problem in problems.items():
        assert problem.layer is not None
        groups.setdefault((id(problem.chip), problem.stack, problem.layer[1].dtype), []).append(key)
    return list(groups.values())


def _stack_answers(problems: list["_Problem"], explain: bool, tuned: Path | None) -> list[Row]:
    """Answers from measured times of the stack on the chip, or on the most similar chip."""
    chip, stack = GpuChip.of(problems[0].chip), problems[0].stack
    layers = [problem.layer for problem in problems if problem.layer is not None]
    dtype = layers[0][1].dtype
    found = shipped.find(chip, stack, dtype).value
    files = tuned_tiles(tuned, chip.device_name, dtype) if tuned is not None else None
    times = found.predict(chip, columns_of(layers), files)
    answers = []
    for i in range(len(layers)):
        timing = Timing(
            grade="modelled",
            latency_us=float(times.latency_us[i]),
            low_us=float(times.low_us[i]),
            high_us=float(times.high_us[i]),
            bound_us=float(times.bound_us[i]),
            limiter=times.limiter[i],
            parts_us={name: float(values[i]) for name, values in times.parts_us.items()},
        )
        answers.append(_row_of(timing, json.dumps(times.tiles.of_row(i)), times.note[i], explain))
    return answers


def _prepare(rows: Iterable[Row], tables: Tables) -> None:
    wanted: dict[tuple[str, str], set[Op]] = {}
    for row in rows:
        if not missing(row.get("tile")):
            continue  # that tile alone is compiled
        try:
            chip = load_chip(text(row, "chip"))
            up = up_op(gated=flag(row, "gated", True))
            dtype = text(row, "dtype", "bfloat16")
            if chip.compiles and chip.has(dtype) and dtype in kernel_for(chip).dtypes:
                ops: set[Op] = {"down"} if text(row, "op", "fused_moe") == "grouped_gemm" else {up, "down"}
                wanted.setdefault((text(row, "chip"), dtype), set()).update(ops)
        except (UserError, *_ROW_ERRORS):
            continue  # told in the row itself
    wanted_tables = ((load_chip(name), None, sorted(ops), dtype) for (name, dtype), ops in wanted.items())
    tables.prepare(wanted_tables, lenient=True)


def _failed(row: Row, error: Exception) -> Row:
    reason = str(error) if isinstance(error, UserError | NoTileError) else f"{type(error).__name__}: {error}"
    return {**dict.fromkeys(OUTPUT), "tile": row.get("tile"), "error": reason}


def _answer(estimate: Estimate, explain: bool) -> Row:
    tiles = [tile.as_dict() for tile in estimate.tiles]
    named = dict(zip(("up", "down"), tiles, strict=True)) if len(tiles) == 2 else (tiles[0] if tiles else None)
    return _row_of(estimate.timing, json.dumps(named) if named else "", "; ".join(estimate.notes), explain)


def _row_of(timing: Timing, tile: str, warning: str, explain: bool) -> Row:
    answer = {
        "latency_us": round(timing.latency_us, 4),
        "low_us": round(timing.low_us, 4),
        "high_us": round(timing.high_us, 4),
        "grade": timing.grade,
        "bound_us": round(timing.bound_us, 4),
        "limiter": timing.limiter,
        "tile": tile,
        "warning": warning,
        "error": "",
    }
    if explain:
        answer["parts_us"] = json.dumps({name: round(value, 3) for name, value in timing.parts_us.items()})
    return answer


@dataclass(frozen=True)
class _Problem:
    """A validated row."""

    chip: Chip
    stack: str
    kernel: str | None
    tiles: tuple[TileConfig, TileConfig] | None
    layer: tuple[MoEShape, Workload] | None
    gemm: GroupedGemm | None

    @classmethod
    def parse(cls, row: Row) -> "_Problem":
        chip = load_chip(text(row, "chip"))
        op, stack = text(row, "op", "fused_moe"), text(row, "stack", "ours")
        if op not in _OPS:
            raise UserError("op", value=op, fix="use fused_moe or grouped_gemm")
        if stack not in ("ours", *STACKS):
            raise UserError("stack", value=stack, fix="use ours, " + ", ".join(STACKS))
        if stack != "ours" and not isinstance(chip, GpuChip):
            raise UserError(f"stack {stack} runs Triton kernels", fix=f"leave the stack out for {chip.name}")
        if stack != "ours" and op != "fused_moe":
            raise UserError(f"stack {stack} is calibrated for op fused_moe alone", fix="leave the stack out (ours)")
        for name in ("kernel", "tile"):
            if stack != "ours" and not missing(row.get(name)):
                raise UserError(f"stack {stack} chooses its own {name}", fix=f"leave out {name}, or the stack")
        kernel = text(row, "kernel", "") or None
        dtype = text(row, "dtype", "bfloat16")
        if op == "grouped_gemm":
            routing = routing_of(row)
            seed = whole(row, "seed", 0)
            if dtype not in DTYPE_BYTES:
                raise UserError("dtype", value=dtype, fix="use one of " + ", ".join(DTYPE_BYTES))
            m, k, n, groups = (whole(row, name) for name in ("m", "k", "n", "groups"))
            if min(m, k, n, groups) < 1:
                raise UserError("m, k, n, groups", value=(m, k, n, groups), fix="give whole numbers of at least 1")
            rows = token_counts(routing, m, groups, 1, seed)
            gemm = GroupedGemm("down", rows, k, n, m, dtype, accumulates=False)
            tile = gemm_tile(row, chip, kernel_for(chip, kernel), gemm) if chip.compiles else None
            return cls(chip, stack, kernel, (tile, tile) if tile else None, None, gemm)
        shape, workload = layer_of(row, dtype)
        tiles = tiles_of(row, chip, kernel)
        if stack != "ours":
            check(shape, workload)
        return cls(chip, stack, kernel, tiles, (shape, workload), None)

    def estimate(self, tables: Tables) -> Estimate:
        if self.gemm is not None:
            tile = self.tiles[1] if self.tiles else None
            return estimate_gemm(tables, self.chip, self.gemm, tile=tile, kernel_name=self.kernel)
        assert self.layer is not None
        return estimate_layer(tables, self.chip, rank_work(*self.layer), tiles=self.tiles, kernel_name=self.kernel)


def predict(
    problems: str | Path | Sequence[Row],
    *,
    out: str | Path | None = None,
    explain: bool = False,
    tuned: str | Path | None = None,
    jobs: int = 1,
    recompile: bool = False,
    compiling: Progress | None = None,
    running: Progress | None = None,
) -> list[Row]:
    """Answer a table of problems (a file, or rows); writes ``out`` if given. A bad row is told in its row.

    ``explain`` adds ``parts_us``, JSON of where each time goes. ``tuned`` is a folder of vLLM's or SGLang's tuned
    files, for rows with that ``stack``. ``recompile`` compiles here what the facts that come with the package answer.
    """
    if out is not None:
        check_output(Path(out))
    rows = read_table(Path(problems)) if isinstance(problems, str | Path) else list(problems)
    if tuned is not None and not Path(tuned).is_dir():
        raise UserError("folder of tuned files", value=str(tuned), fix="give a folder of E=..,N=..,device_name=...json")
    tables = Tables(jobs=jobs, progress=compiling, recompile=recompile)
    answered = predict_rows(
        rows, tables, explain=explain, tuned=Path(tuned) if tuned is not None else None, progress=running
    )
    if out is not None:
        write_table(Path(out), answered)
    return answered
