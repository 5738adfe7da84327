"""Write a table as its rows come, and go on after a kill.

While rows come they go to ``OUT.partial``, and ``OUT.partial.json`` says how much of it is whole and what it is the
answer to. When the last row is there, ``OUT`` is written in one step and both are removed.
"""

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from moe_codesign.errors import MachineError
from moe_codesign.files import put_in_place, replace_file
from moe_codesign.formats.problem_rows import Row
from moe_codesign.formats.tables import check_output, parquet_module

_CHUNK = 10_000


class TableOutput:
    """The table ``out`` while its rows come. Use as a context manager; after :meth:`finish` the table is there.

    Args:
        out: .csv, .jsonl or .parquet.
        columns: of every row, where all are known before; None where each row brings its own.
        question: what the rows answer (the input, options, version). Rows of another question are begun again.

    Attributes:
        done: rows that are there already, at first those from a run that was cut off.
        counts: sums of what was counted of them.
    """

    def __init__(self, out: Path, columns: Sequence[str] | None, question: dict[str, Hashable]) -> None:
        check_output(out)
        self._out = out
        self._columns = columns if out.suffix.lower() == ".csv" else None
        self._partial = out.with_name(f"{out.name}.partial")
        self._state = out.with_name(f"{out.name}.partial.json")
        self._question = json.loads(json.dumps({**question, "columns": self._columns}))
        self.counts: Counter[str] = Counter()
        self.done, size = self._there()
        try:
            self._file = self._partial.open("ab")
            self._file.truncate(size)
        except OSError as error:
            raise MachineError(f"{self._partial} cannot be written ({error.strerror})") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _there(self) -> tuple[int, int]:
        """Rows and bytes of an earlier run that are whole."""
        try:
            state = json.loads(self._state.read_text(encoding="utf-8"))
            rows, size = int(state["rows"]), int(state["bytes"])
            counts = Counter({str(name): int(count) for name, count in state["counts"].items()})
            whole = state["question"] == self._question and self._partial.stat().st_size >= size
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return 0, 0
        if not whole:
            return 0, 0
        self.counts = counts
        return rows, size

    def append(self, rows: Sequence[Row], **counts: int) -> None:
        """Add rows; they are on the disk when this returns.

        Args:
            rows: to add.
            counts: numbers that are added to those of the rows before, as :attr:`counts`.

        Raises:
            MachineError: they cannot be written. What was there before is whole.
        """
        text = self._text(rows)
        try:
            self._file.write(text.encode())
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise MachineError(
                f"{self._partial} cannot be written ({error.strerror}); its first {self.done} rows are whole"
            ) from None
        self.done += len(rows)
        self.counts.update(counts)
        state = {"question": self._question, "rows": self.done, "bytes": self._file.tell(), "counts": self.counts}
        replace_file(self._state, json.dumps(state).encode())

    def finish(self) -> None:
        """Write the table and remove what was kept for a run that is cut off."""
        self._file.close()
        if self._columns is not None or self._out.suffix.lower() == ".jsonl":
            put_in_place(self._partial, self._out)
        elif self._out.suffix.lower() == ".csv":
            self._converted(self._as_csv)
        else:
            self._converted(self._as_parquet)
        self._state.unlink(missing_ok=True)
        self._partial.unlink(missing_ok=True)

    def _text(self, rows: Sequence[Row]) -> str:
        if self._columns is None:
            return "".join(json.dumps(row, default=str) + "\n" for row in rows)
        lines = io.StringIO()
        writer = csv.writer(lines, lineterminator="\r\n")
        if not self.done:
            writer.writerow(self._columns)
        columns = self._columns
        writer.writerows([row.get(name, "") for name in columns] for row in rows)
        return lines.getvalue()

    def _converted(self, convert: Any) -> None:
        made = self._out.with_name(f"{self._out.name}.partial.new")
        kinds: dict[str, set[type]] = {}
        for rows in self._chunks():
            for row in rows:
                for name, value in row.items():
                    kinds.setdefault(name, set()).add(type(value))
        try:
            convert(made, kinds)
        except OSError as error:
            made.unlink(missing_ok=True)
            raise MachineError(
                f"{made} cannot be written ({error.strerror}); the rows are in {self._partial}"
            ) from None
        put_in_place(made, self._out)

    def _chunks(self) -> Iterator[list[Row]]:
        rows: list[Row] = []
        with self._partial.open("rb") as file:
            for line in file:
                rows.append(json.loads(line))
                if len(rows) == _CHUNK:
                    yield rows
                    rows = []
        yield rows

    def _as_csv(self, made: Path, kinds: dict[str, set[type]]) -> None:
        with made.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(kinds))
            writer.writeheader()
            for rows in self._chunks():
                writer.writerows(rows)

    def _as_parquet(self, made: Path, kinds: dict[str, set[type]]) -> None:
        import pyarrow

        types = {name: _arrow_type(pyarrow, kind - {type(None)}) for name, kind in kinds.items()}
        schema = pyarrow.schema(list(types.items()))
        with parquet_module().ParquetWriter(made, schema) as writer:
            for rows in self._chunks():
                columns = [
                    pyarrow.array([_as(kind, row.get(name)) for row in rows], kind) for name, kind in types.items()
                ]
                writer.write_table(pyarrow.Table.from_arrays(columns, schema=schema))


def _arrow_type(pyarrow: Any, kinds: set[type]) -> Any:
    """Of a column whose values are of these types; text where they are mixed."""
    if kinds == {bool}:
        return pyarrow.bool_()
    if kinds == {int}:
        return pyarrow.int64()
    return pyarrow.float64() if kinds and kinds <= {int, float} else pyarrow.string()


def _as(kind: Any, value: Any) -> Any:
    return value if value is None or str(kind) != "string" or isinstance(value, str) else json.dumps(value)
