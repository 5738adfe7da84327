"""Times for a table of problems: each row answered, or told in its own row why not."""

import csv
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moe_codesign.chips import Chip, load_chip
from moe_codesign.cost import calibration
from moe_codesign.cost.estimate import Estimate, NoTileError, estimate_gemm, estimate_layer
from moe_codesign.cost.loads import check, columns_of
from moe_codesign.cost.problem import GroupedGemm
from moe_codesign.cost.stacks import STACKS, tuned_tiles
from moe_codesign.cost.table import Tables, kernel_for
from moe_codesign.errors import UserError
from moe_codesign.routing import Routing
from moe_codesign.rows import Row, flag, layer_of, missing, text, whole
from moe_codesign.shape import DTYPE_BYTES, MoEShape
from moe_codesign.timing import Timing
from moe_codesign.workload import Workload, rank_work
from moe_kernels.kernel import Kernel, Op
from moe_kernels.tile import WHOLE_DEPTH, TileConfig

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
        The rows with OUTPUT columns added; ``error`` is empty where there is an answer.
    """
    native = [row for row in rows if text(row, "stack", "native") == "native"]
    _prepare(native, tables)
    keys = [json.dumps({k: str(v) for k, v in row.items() if k in _INPUT}, sort_keys=True) for row in rows]
    distinct = dict(zip(keys, rows, strict=True))
    known: dict[str, Row] = {}
    of_stacks: dict[str, _Problem] = {}
    for number, (key, row) in enumerate(distinct.items(), 1):
        try:
            problem = _Problem.parse(row)
            if problem.stack == "native":
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
    return [{**row, **known[key]} for key, row in zip(keys, rows, strict=True)]


def _by_calibration(problems: dict[str, "_Problem"]) -> list[list[str]]:
    """Keys of problems that one calibration answers together."""
    groups: dict[tuple[int, str, str], list[str]] = {}
    for key, problem in problems.items():
        assert problem.layer is not None
        groups.setdefault((id(problem.chip), problem.stack, problem.layer[1].dtype), []).append(key)
    return list(groups.values())


def _stack_answers(problems: list["_Problem"], explain: bool, tuned: Path | None) -> list[Row]:
    """Answers from measured times of the stack on the chip, or on the most similar chip."""
    chip, stack = problems[0].chip, problems[0].stack
    layers = [problem.layer for problem in problems if problem.layer is not None]
    dtype = layers[0][1].dtype
    found = calibration.find(chip, stack, dtype)
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
            up: Op = "gate_up" if flag(row, "gated", True) else "up"
            dtype = text(row, "dtype", "bfloat16")
            if chip.compiles and chip.peak(dtype) and dtype in kernel_for(chip).dtypes:
                ops: set[Op] = {"down"} if text(row, "op", "fused_moe") == "grouped_gemm" else {up, "down"}
                wanted.setdefault((text(row, "chip"), dtype), set()).update(ops)
        except (UserError, *_ROW_ERRORS):
            continue  # told in the row itself
    tables.prepare((load_chip(name), None, sorted(ops), dtype) for (name, dtype), ops in wanted.items())


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
        op, stack = text(row, "op", "fused_moe"), text(row, "stack", "native")
        if op not in _OPS:
            raise UserError("op", value=op, mend="use fused_moe or grouped_gemm")
        if stack not in ("native", *STACKS):
            raise UserError("stack", value=stack, mend="use native, " + ", ".join(STACKS))
        if stack != "native" and chip.backend != "triton":
            raise UserError(f"stack {stack} runs Triton kernels", mend=f"leave the stack out for {chip.name}")
        if stack != "native" and op != "fused_moe":
            raise UserError(f"stack {stack} is calibrated for op fused_moe alone", mend="leave the stack out (native)")
        for name in ("kernel", "tile"):
            if stack != "native" and not missing(row.get(name)):
                raise UserError(f"stack {stack} chooses its own {name}", mend=f"leave out {name}, or the stack")
        kernel = text(row, "kernel", "") or None
        dtype = text(row, "dtype", "bfloat16")
        if op == "grouped_gemm":
            routing = Routing.parse(text(row, "routing", "balanced"))
            seed = whole(row, "seed", 0)
            if dtype not in DTYPE_BYTES:
                raise UserError("dtype", value=dtype, mend="use one of " + ", ".join(DTYPE_BYTES))
            m, k, n, groups = (whole(row, name) for name in ("m", "k", "n", "groups"))
            if min(m, k, n, groups) < 1:
                raise UserError("m, k, n, groups", value=(m, k, n, groups), mend="give whole numbers of at least 1")
            rows = routing.counts(m, groups, 1, seed)
            gemm = GroupedGemm("down", rows, k, n, m, dtype, accumulates=False)
            tile = gemm_tile(row, chip, kernel_for(chip, kernel), gemm) if chip.compiles else None
            return cls(chip, stack, kernel, (tile, tile) if tile else None, None, gemm)
        shape, workload = layer_of(row, dtype)
        tiles = _tiles(row, chip, kernel)
        if stack != "native":
            check(shape, workload)
        return cls(chip, stack, kernel, tiles, (shape, workload), None)

    def estimate(self, tables: Tables) -> Estimate:
        if self.gemm is not None:
            tile = self.tiles[1] if self.tiles else None
            return estimate_gemm(tables, self.chip, self.gemm, tile=tile, kernel_name=self.kernel)
        assert self.layer is not None
        return estimate_layer(tables, self.chip, rank_work(*self.layer), tiles=self.tiles, kernel_name=self.kernel)


_SAME = (
    ("block_m", "tile_m"),
    ("block_k", "tile_k"),
    ("block_n", "tile_n"),
    ("num_stages", "weight_buffers", "input_buffer_count", "num_buffers"),
    ("num_warps",),
    ("split_k",),
)
"""Names that kernels of either backend have for the same thing."""


def gemm_tile(row: Row, chip: Chip, kernel: Kernel, gemm: GroupedGemm) -> TileConfig | None:
    """A tile in any kernel's words: what ours has no word for is the default tile's, or left out."""
    value = row.get("tile")
    if missing(value):
        return None
    per_group = gemm.total_rows / max(gemm.active_groups, 1)
    fields = kernel.default_tile(gemm.problem, per_group, chip.target).as_dict()
    # Switches of the default tile would change what the given numbers mean.
    fields |= {name: False for name, is_on in fields.items() if is_on is True}
    try:
        data = json.loads(value) if isinstance(value, str) else dict(value or {})
        for names in _SAME:
            given = [data[name] for name in names if data.get(name) is not None]
            if given:
                fields |= {name: given[0] for name in names if name in fields}
        fields |= {name: data[name] for name in fields if name in data}
        if "swap_ab" in fields and int(fields["block_m"]) < 16:
            fields["swap_ab"] = True  # so few rows can only be the narrow side of a matrix instruction
        if "tile_k" in fields and int(fields["tile_k"]) >= gemm.k:
            fields["tile_k"] = max(int(fields["tile_k"]), WHOLE_DEPTH)
        return kernel.tile_type.from_dict(fields)
    except (ValueError, TypeError) as error:
        raise UserError(f"tile {value!r}: {error}", mend='give JSON such as {"block_m": 64, ...}') from None


def _tiles(row: Row, chip: Chip, kernel: str | None) -> tuple[TileConfig, TileConfig] | None:
    value = row.get("tile")
    if missing(value):
        return None
    try:
        data = json.loads(value) if isinstance(value, str) else dict(value or {})
        tile_type = kernel_for(chip, kernel).tile_type
        if {"up", "down"} == set(data):
            return tile_type.from_dict(data["up"]), tile_type.from_dict(data["down"])
        tile = tile_type.from_dict(data)
    except (ValueError, TypeError) as error:
        raise UserError(f"tile {value!r}: {error}", mend='give JSON such as {"block_m": 64, ...}') from None
    return tile, tile


def read_table(path: Path) -> list[Row]:
    """Rows of a .csv, .jsonl or .parquet file.

    Raises:
        UserError: missing, of another kind, or unreadable.
    """
    try:
        match path.suffix.lower():
            case ".csv":
                with path.open(newline="", encoding="utf-8-sig") as file:
                    return list(csv.DictReader(file))
            case ".jsonl":
                return [_object(line, n) for n, line in enumerate(path.read_text().splitlines(), 1) if line.strip()]
            case ".parquet":
                return list(_parquet().read_table(path).to_pylist())
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({str(error).splitlines()[0]})") from None
    raise UserError("input file", value=str(path), mend="use .csv, .jsonl or .parquet")


def check_output(path: Path) -> None:
    """Raise UserError before any work if :func:`write_table` could not write there."""
    if path.suffix.lower() not in (".csv", ".jsonl", ".parquet"):
        raise UserError("output file", value=str(path), mend="use .csv, .jsonl or .parquet")
    if path.suffix.lower() == ".parquet":
        _parquet()
    check_folder(path.parent)
    if path.is_dir() or (path.exists() and not os.access(path, os.W_OK)):
        raise UserError("output file", value=str(path), mend="it cannot be written; give another --out")


def check_folder(folder: Path) -> None:
    """Make the folder, or raise UserError, before any work is done for it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"folder {folder} cannot be made ({error.strerror})", mend="give another --out") from None
    if not os.access(folder, os.W_OK):
        raise UserError("folder", value=str(folder), mend="it cannot be written; give another --out")


def write_table(path: Path, rows: Sequence[Row]) -> None:
    """Write rows to a .csv, .jsonl or .parquet file; every row gets every column."""
    columns = list(dict.fromkeys(name for row in rows for name in row if isinstance(name, str)))
    path.parent.mkdir(parents=True, exist_ok=True)
    match path.suffix.lower():
        case ".csv":
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, columns, extrasaction="ignore")
                writer.writeheader()
                writer.writerows(rows)
        case ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        case ".parquet":
            import pyarrow

            table = pyarrow.table({c: _column([row.get(c) for row in rows]) for c in columns})
            _parquet().write_table(table, path)


def _column(values: list[Any]) -> list[Any]:
    kinds = {type(v) for v in values if v is not None}
    return values if len(kinds) <= 1 or kinds <= {int, float} else [None if v is None else str(v) for v in values]


def _object(line: str, number: int) -> Row:
    value = json.loads(line)
    if not isinstance(value, dict):
        raise ValueError(f"line {number} holds no JSON object")
    return value


def _parquet() -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise UserError("parquet files need pyarrow", mend="pip install 'moe-codesign[parquet]'") from None
    return pyarrow.parquet
