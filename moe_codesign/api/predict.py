"""Times for a table of problems."""

import itertools
import secrets
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

from moe_codesign.answers.problem_table import How, answered_parts
from moe_codesign.answers.quality_asked import quality_asked
from moe_codesign.compiler.build import Progress
from moe_codesign.formats.columns import OUTPUT, QUALITY_OUTPUT
from moe_codesign.formats.problem_rows import Row
from moe_codesign.formats.table_output import TableOutput
from moe_codesign.formats.tables import check_output, open_table, rows_about
from moe_codesign.versions import provenance


@dataclass(frozen=True)
class Predicted:
    """What became of a table's rows.

    Args:
        rows: all of them.
        failed: those with an ``error``.
        warned: those with a ``warning``.
        resumed: those that an earlier run had answered, which was cut off.
        notes: what holds for all ratios of quality, a sentence each; empty where none were asked for.
    """

    rows: int
    failed: int
    warned: int
    resumed: int
    notes: tuple[str, ...] = ()


def predict(
    problems: str | Path | Sequence[Row],
    *,
    out: str | Path | None = None,
    explain: bool = False,
    tuned: str | Path | None = None,
    reference: str | None = None,
    training_tokens: float | None = None,
    law: str | None = None,
    jobs: int = 1,
    recompile: bool = False,
    compiling: Progress | None = None,
    running: Progress | None = None,
) -> list[Row]:
    """Answer problems. A row that cannot be answered gets its reason in ``error``.

    All rows are held in memory; :func:`predict_file` answers tables of any length.

    Args:
        problems: a .csv, .jsonl or .parquet file, or rows.
        out: file to write the answered rows to.
        explain: add the column ``parts_us``, JSON of where each time goes.
        tuned: folder of vLLM's or SGLang's tuned files, for rows with that ``stack``.
        reference: add columns of quality, each row's shape beside this model (catalogue name or config.json).
        training_tokens: with it: what the model, and every shape beside it, is trained on.
        law: with it: the scaling law to go by; default efficiency_leverage.
        jobs: processes that compile, and that answer long tables.
        recompile: compile here what the facts that come with the package would answer.
        compiling: called with how many tiles are compiled, of how many.
        running: called with how many problems are answered, of how many.

    Returns:
        The rows with the columns of the answer; see docs/predict.md.

    Raises:
        UserError: a file cannot be read or written.
    """
    how = How(
        explain=explain,
        tuned=Path(tuned) if tuned is not None else None,
        recompile=recompile,
        jobs=jobs,
        quality=quality_asked(reference, training_tokens, law),
    )
    if out is not None:
        check_output(Path(out))
    rows = list(open_table(Path(problems)).rows) if isinstance(problems, str | Path) else list(problems)
    report = _counter(running, len(rows))
    answered = list(itertools.chain.from_iterable(answered_parts(rows, how, compiling=compiling, running=report)))
    if out is not None:
        # Rows given in memory have no name by which an earlier run could be known.
        with TableOutput(Path(out), None, {"run": secrets.token_hex(8)}) as output:
            output.append(answered)
            output.finish()
    return answered


def predict_file(
    problems: str | Path,
    out: str | Path,
    *,
    explain: bool = False,
    tuned: str | Path | None = None,
    reference: str | None = None,
    training_tokens: float | None = None,
    law: str | None = None,
    jobs: int = 1,
    recompile: bool = False,
    compiling: Progress | None = None,
    running: Progress | None = None,
) -> Predicted:
    """Answer a table of any length, writing as it goes; called again after it was cut off, it goes on.

    Args: as :func:`predict`. While it runs the rows are in ``OUT.partial``.

    Raises:
        UserError: a file cannot be read or written.
        MachineError: the disk is full, or a child process ended; what was answered is kept.
    """
    path, target = Path(problems), Path(out)
    how = How(
        explain=explain,
        tuned=Path(tuned) if tuned is not None else None,
        recompile=recompile,
        jobs=jobs,
        quality=quality_asked(reference, training_tokens, law),
    )
    check_output(target)
    table = open_table(path)
    status = path.stat()
    question: dict[str, Hashable] = {
        "problems": str(path.resolve()),
        "modified_ns": status.st_mtime_ns,
        "size": status.st_size,
        "explain": explain,
        "tuned": str(how.tuned.resolve()) if how.tuned is not None else None,
        "recompile": recompile,
        "quality": str(how.quality),
        "version": provenance().get("moe-codesign"),
    }
    added = ("routing", *OUTPUT, *(("parts_us",) if explain else ()), *(QUALITY_OUTPUT if how.quality else ()))
    columns = None if table.columns is None else tuple(dict.fromkeys((*table.columns, *added)))
    with TableOutput(target, columns, question) as output:
        resumed = output.done
        report = _counter(running, max(rows_about(path), resumed), resumed)
        left = itertools.islice(table.rows, resumed, None)
        for part in answered_parts(left, how, compiling=compiling, running=report):
            failed, warned = (sum(bool(row[name]) for row in part) for name in ("error", "warning"))
            output.append(part, failed=failed, warned=warned)
        output.finish()
    notes = how.quality.notes() if how.quality is not None else ()
    return Predicted(output.done, output.counts["failed"], output.counts["warned"], resumed, notes)


def _counter(running: Progress | None, total: int, done: int = 0) -> Callable[[int], None] | None:
    """Called with how many rows more are done, it reports how many are, of how many."""
    if running is None:
        return None

    def add(more: int) -> None:
        nonlocal done
        done += more
        running(done, max(total, done))

    return add
