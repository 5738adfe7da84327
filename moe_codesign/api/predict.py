"""Times for a table of problems."""

from collections.abc import Sequence
from pathlib import Path

from moe_codesign.answers.predictor import Predictor
from moe_codesign.compiler.build import Progress
from moe_codesign.compiler.tile_table import Tables
from moe_codesign.errors import UserError
from moe_codesign.formats.problem_rows import Row
from moe_codesign.formats.tables import check_output, read_table, write_table


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
    """Answer a table of problems. A row that cannot be answered gets its reason in ``error``.

    Args:
        problems: a .csv, .jsonl or .parquet file, or rows.
        out: file to write the answered rows to.
        explain: add the column ``parts_us``, JSON of where each time goes.
        tuned: folder of vLLM's or SGLang's tuned files, for rows with that ``stack``.
        jobs: compiler processes.
        recompile: compile here what the facts that come with the package would answer.
        compiling: called with how many tiles are compiled, of how many.
        running: called with how many problems are answered, of how many.

    Returns:
        The rows with the columns of the answer; see docs/predict.md.

    Raises:
        UserError: a file cannot be read or written.
    """
    if out is not None:
        check_output(Path(out))
    rows = read_table(Path(problems)) if isinstance(problems, str | Path) else list(problems)
    if tuned is not None and not Path(tuned).is_dir():
        raise UserError("folder of tuned files", value=str(tuned), fix="give a folder of E=..,N=..,device_name=...json")
    tables = Tables(jobs=jobs, progress=compiling, recompile=recompile)
    predictor = Predictor(tables, explain=explain, tuned=Path(tuned) if tuned is not None else None)
    answered = predictor.answer(rows, running)
    if out is not None:
        write_table(Path(out), answered)
    return answered
