"""Races: measured times of many tiles of our kernels on one problem."""

import csv
import gzip
import json
import math
import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from moe_codesign.arrays import F64
from moe_codesign.chips import GpuChip
from moe_codesign.compiler import requests_for
from moe_codesign.compiler.kernels import kernel_for
from moe_codesign.compiler.tile_table import Tables, TileTable, table_of
from moe_codesign.domain.grouped_gemm import GroupedGemm, layer_gemms
from moe_codesign.domain.rank import rank_work
from moe_codesign.errors import UserError
from moe_codesign.extras import require
from moe_codesign.formats.problem_rows import Row, measured_layer, missing, text
from moe_kernels.kernel import Kernel, Op
from moe_kernels.tile import TileConfig

OPS: tuple[Op, ...] = ("gate_up", "down")
GOOD = 1.5
"""A choice is among the tiles up to so many times the fastest, and their errors are reported. Slower ones are fitted,
with less weight."""
_DIRTY = {"write": 1.0, "read": 0.0}
"""How the L2 was flushed: by writing, it is full of lines that must be written back on the clock."""


@dataclass(frozen=True)
class Race:
    """One GEMM with many tiles. ``table``: their binaries' facts, a row each; ``latency_us`` [rows].

    ``shape``: hidden-inter-experts-topk, by which races are left out together. ``dirty``: 1 where the L2 was flushed by
    writing. ``unnamed_routing``: how many of the rows name no routing and were read as the default one.
    """

    gemm: GroupedGemm
    table: TileTable
    latency_us: F64
    shape: str
    tokens: int
    dirty: float
    unnamed_routing: int

    @property
    def mean_rows(self) -> float:
        """Per expert that has any."""
        return self.gemm.total_rows / max(self.gemm.active_groups, 1)

    @property
    def good(self) -> "np.ndarray[Any, np.dtype[np.bool_]]":
        """Tiles near the fastest."""
        return np.asarray(self.latency_us < GOOD * self.latency_us.min())

    @property
    def weight(self) -> F64:
        """The nearer to the fastest the more, and races alike however many tiles they are of."""
        return np.asarray(self.latency_us.min() / self.latency_us / np.sqrt(len(self.latency_us)))


def read_races(path: Path, chip: GpuChip, *, jobs: int = 1) -> list[Race]:
    """Races of a table, or of every table (.csv, .csv.gz) of a folder.

    A row has the columns of `predict`, ``op`` (gate_up or down), ``tile`` (JSON), ``latency_us`` and ``flush``. Rows
    without a time are passed over. Every tile is compiled for the chip, whose facts the model reads.

    Raises:
        UserError: no such table, a malformed row, or no races in it.
    """
    require("catboost", "a fit")
    found = [path] if not path.is_dir() else sorted([*path.glob("*.csv"), *path.glob("*.csv.gz")])
    kernel = kernel_for(chip)
    rows = [row for one in found for row in _timed_rows(one, chip, kernel)]
    grouped: dict[tuple[str, str], dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    about = ("hidden_size", "moe_intermediate_size", "num_experts", "num_experts_per_tok", "num_tokens", "ep", "tp",
             "routing", "seed", "flush")  # fmt: skip
    for row in rows:
        grouped[str(row["op"]), text(row, "dtype", "bfloat16")][json.dumps([row.get(n) for n in about])].append(row)
    if not grouped:
        raise UserError(f"{path} holds no races", fix="make them with benchmarks/gpu/tiles.py")
    tables, races = Tables(jobs=jobs), []
    for (op, dtype), by_problem in grouped.items():
        tiles = dict.fromkeys(_tile(kernel.tile_type, row) for some in by_problem.values() for row in some)
        requests = requests_for(kernel, chip, (cast(Op, op),), dtype, list(tiles))
        outcomes = tables.compile(requests.values())
        table = table_of(kernel, chip, cast(Op, op), {tile: outcomes[r] for (_, tile), r in requests.items()})
        races += [race for some in by_problem.values() if (race := _race(some, table, dtype)) is not None]
    return races


def _timed_rows(path: Path, chip: GpuChip, kernel: Kernel) -> list[Row]:
    """Rows that have a time. Raises UserError, naming the line, if a row is malformed."""
    try:
        plain = path.read_bytes()
        lines = (gzip.decompress(plain) if path.suffix == ".gz" else plain).decode().splitlines()
        rows: list[Row] = list(csv.DictReader(lines))
    except (OSError, UnicodeDecodeError, zlib.error, EOFError, csv.Error) as error:
        raise UserError(f"{path} cannot be read ({error})", fix="give a table of races, .csv or .csv.gz") from None
    timed = []
    for number, row in enumerate(rows, 2):
        if row.get("op") not in OPS or not row.get("latency_us"):
            continue
        try:
            measured_layer(row, text(row, "dtype", "bfloat16"))
            _tile(kernel.tile_type, row)
            if not 0 < float(row["latency_us"]) < math.inf:
                raise ValueError(f"latency_us = {row['latency_us']}")
            if text(row, "flush", "read") not in _DIRTY:
                raise ValueError(f"flush = {row['flush']!r}: give read or write")
            if text(row, "dtype", "bfloat16") not in kernel.dtypes:
                raise ValueError(f"dtype = {row['dtype']!r}: give one of {', '.join(kernel.dtypes)}")
            if text(row, "chip", chip.name) != chip.name:
                raise ValueError(f"chip = {row['chip']!r}, not {chip.name}")
        except (UserError, ValueError, KeyError, TypeError, OverflowError) as error:
            raise UserError(f"{path}, line {number}: {error}") from None
        timed.append(row)
    return timed


def _tile(kind: type[TileConfig], row: Row) -> TileConfig:
    return kind.from_dict(json.loads(str(row["tile"])))


def _race(rows: Sequence[Row], table: TileTable, dtype: str) -> Race | None:
    shape, workload = measured_layer(rows[0], dtype)
    gemm = next(g for g in layer_gemms(rank_work(shape, workload)) if g.op == table.op)
    places, times = [], []
    for row in rows:
        place = table.index(_tile(table.kernel.tile_type, row))
        if place is not None:
            places.append(place)
            times.append(float(row["latency_us"]))
    if len(places) < 2:
        return None
    key = f"{shape.hidden_size}-{shape.moe_intermediate_size}-{shape.num_experts}-{shape.num_experts_per_tok}"
    part = table.rows(np.array(places))
    dirty = _DIRTY[text(rows[0], "flush", "read")]
    # Rows of one race are alike in all that describes the problem.
    unnamed = len(places) if missing(rows[0].get("routing")) else 0
    return Race(gemm, part, np.array(times), key, workload.num_tokens, dirty, unnamed)
