"""Tables of rows as .csv, .jsonl or .parquet files."""

import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moe_codesign.errors import UserError, first_line
from moe_codesign.extras import require
from moe_codesign.files import check_folder
from moe_codesign.formats.problem_rows import Row


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
                return [
                    _object(line, n)
                    for n, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
                    if line.strip()
                ]
            case ".parquet":
                return list(_parquet().read_table(path).to_pylist())
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({first_line(error)})") from None
    raise UserError("input file", value=str(path), fix="use .csv, .jsonl or .parquet")


def check_output(path: Path) -> None:
    """Raise UserError before any work if :func:`write_table` could not write there."""
    if path.suffix.lower() not in (".csv", ".jsonl", ".parquet"):
        raise UserError("output file", value=str(path), fix="use .csv, .jsonl or .parquet")
    if path.suffix.lower() == ".parquet":
        _parquet()
    check_folder(path.parent)
    if path.is_dir() or (path.exists() and not os.access(path, os.W_OK)):
        raise UserError("output file", value=str(path), fix="it cannot be written; give another --out")


def write_table(path: Path, rows: Sequence[Row]) -> None:
    """Write rows to a .csv, .jsonl or .parquet file; every row gets every column."""
    columns = list(dict.fromkeys(name for row in rows for name in row if isinstance(name, str)))
    path.parent.mkdir(parents=True, exist_ok=True)
    match path.suffix.lower():
        case ".csv":
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, columns, extrasaction="ignore")
                writer.writeheader()
                writer.writerows(rows)
        case ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
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
    require("pyarrow", "a .parquet file")
    import pyarrow.parquet

    return pyarrow.parquet
