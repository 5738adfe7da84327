"""Tables of rows as .csv, .jsonl or .parquet files, read a row at a time."""

import csv
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from moe_codesign.errors import UserError, first_line
from moe_codesign.extras import require
from moe_codesign.files import check_folder
from moe_codesign.formats.problem_rows import BadRow, Row

KINDS = (".csv", ".jsonl", ".parquet")
_SEPARATORS = (",", ";", "\t")
_LONGEST_LINE = 16 * 2**20
"""Bytes of one row's line: a histogram of a million experts has fewer."""


@dataclass(frozen=True)
class Table:
    """A table that is being read.

    Args:
        columns: its headers; None where every row brings its own (.jsonl).
        rows: the rows, each read when it is asked for. A row that cannot be read is a :class:`BadRow`.
    """

    columns: tuple[str, ...] | None
    rows: Iterator[Row]


def open_table(path: Path) -> Table:
    """A .csv, .jsonl or .parquet file.

    The separator of a .csv may be a comma, a semicolon or a tab, whichever its header has most.

    Raises:
        UserError: missing, of another kind, unreadable, or without a row.
    """
    try:
        match path.suffix.lower():
            case ".csv":
                table = _csv(path)
            case ".jsonl":
                table = Table(None, _jsonl(path))
            case ".parquet":
                table = _read_parquet(path)
            case _:
                raise UserError("input file", value=str(path), fix="use .csv, .jsonl or .parquet")
        first = next(table.rows, None)
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path} cannot be read ({first_line(error)})") from None
    if first is None:
        raise UserError(f"{path} holds no rows", fix="give one problem per row")
    return Table(table.columns, chain([first], table.rows))


def read_table(path: Path) -> list[Row]:
    """All rows of a file; see :func:`open_table`.

    Raises:
        UserError: as there, or a row cannot be read; names its line.
    """
    rows = list(open_table(path).rows)
    for row in rows:
        if isinstance(row, BadRow):
            raise UserError(f"{path} cannot be read ({row.reason})")
    return rows


def rows_about(path: Path) -> int:
    """How many rows a table has: lines, without the header; a quoted text may hold some of them."""
    if path.suffix.lower() == ".parquet":
        return int(parquet_module().ParquetFile(path).metadata.num_rows)
    with path.open("rb") as file:
        lines = sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
    return max(lines - (path.suffix.lower() == ".csv"), 1)


def check_output(path: Path) -> None:
    """Raise UserError before any work if a table could not be written there."""
    if path.suffix.lower() not in KINDS:
        raise UserError("output file", value=str(path), fix="use .csv, .jsonl or .parquet")
    if path.suffix.lower() == ".parquet":
        parquet_module()
    check_folder(path.parent)
    if path.is_dir() or (path.exists() and not os.access(path, os.W_OK)):
        raise UserError("output file", value=str(path), fix="it cannot be written; give another --out")


def _csv(path: Path) -> Table:
    with path.open(newline="", encoding="utf-8-sig") as file:
        separator = max(_SEPARATORS, key=file.readline(_LONGEST_LINE).count)
        file.seek(0)
        columns = tuple(next(csv.reader(file, delimiter=separator), ()))
    if len(set(columns)) < len(columns):
        twice = next(name for name in columns if columns.count(name) > 1)
        raise UserError(f"{path} has the column {twice!r} twice", fix="keep one of them")

    def rows() -> Iterator[Row]:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, delimiter=separator)
            next(reader, None)
            while True:
                try:
                    cells = next(reader)
                except StopIteration:
                    return
                except (csv.Error, UnicodeDecodeError) as error:
                    yield BadRow(f"line {reader.line_num}: {first_line(error)}")
                    if isinstance(error, UnicodeDecodeError):
                        return  # where the next line begins is not known
                    continue
                if len(cells) > len(columns):
                    over = len(cells) - len(columns)
                    fix = "put text that holds the separator in quotes"
                    reason = f"line {reader.line_num} has {over} cells more than there are headers; {fix}"
                    yield BadRow(reason, dict(zip(columns, cells[: len(columns)], strict=True)))
                elif cells:
                    yield dict(zip(columns[: len(cells)], cells, strict=True))

    return Table(columns, rows())


def _jsonl(path: Path) -> Iterator[Row]:
    """Lines end with a line feed alone: JSON text may hold any other separator."""
    with path.open("rb") as file:
        for number in range(1, 2**63):
            line = file.readline(_LONGEST_LINE)
            if not line:
                return
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                value = json.loads(text) if text else None
            except (ValueError, RecursionError) as error:
                yield BadRow(f"line {number} is not JSON ({first_line(error)})")
                continue
            if isinstance(value, dict):
                yield value
            elif text:
                yield BadRow(f"line {number} holds no JSON object")


def _read_parquet(path: Path) -> Table:
    file = parquet_module().ParquetFile(path)
    batches = file.iter_batches(batch_size=10_000)
    return Table(tuple(file.schema_arrow.names), chain.from_iterable(batch.to_pylist() for batch in batches))


def parquet_module() -> Any:
    """``pyarrow.parquet``. Raises UserError, which names the extra, where it is not installed."""
    require("pyarrow", "a .parquet file")
    import pyarrow.parquet

    return pyarrow.parquet
