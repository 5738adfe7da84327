"""Times for a table of problems. A row that cannot be answered says why; the others are unaffected."""

import json
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path

from moe_codesign.chips import Chip, load_chip
from moe_codesign.compiler.build import Progress
from moe_codesign.compiler.tile_table import Tables
from moe_codesign.cost.estimate import ABSURD, Answer, CostModel, Estimate, failure_of
from moe_codesign.cost.model_for import kind_of, model_for
from moe_codesign.domain.failure import Failure
from moe_codesign.domain.question import Question
from moe_codesign.errors import UserError
from moe_codesign.formats.columns import INPUT, OUTPUT
from moe_codesign.formats.problem_rows import Row, routing_text, text
from moe_codesign.formats.questions import question_of
from moe_codesign.formats.tables import check_output, read_table, write_table

Key = tuple[str, ...]
"""All that a row asks, as text."""


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
        rows: one problem each, with the columns of docs/predict.md. Values may be text, as in CSV.
        tables: compiled tiles; what the rows need and the cache lacks is compiled first, in one go.
        explain: add ``parts_us``, JSON of where the time goes.
        tuned: folder of a stack's tuned files, which come before its default rule.
        progress: called with (distinct problems done, distinct problems).

    Returns:
        The rows with OUTPUT columns added; ``error`` is empty where there is an answer. ``routing`` says which routing
        was taken where the row named none.
    """
    keys = [tuple([str(row.get(name, "")) for name in INPUT]) for row in rows]
    distinct = dict(zip(keys, rows, strict=True))
    answers: dict[Key, Answer] = {}
    groups: dict[tuple[Chip, Hashable], dict[Key, Question]] = {}
    for key, row in distinct.items():
        try:
            chip = load_chip(text(row, "chip"))
            question = question_of(row, chip)
        except (UserError, *ABSURD) as error:
            answers[key] = failure_of(error)
        else:
            groups.setdefault((chip, kind_of(question)), {})[key] = question
    models: list[tuple[CostModel[Question], dict[Key, Question]]] = []
    for (chip, _), asked in groups.items():
        try:
            models.append((model_for(next(iter(asked.values())), chip, tables, tuned=tuned), asked))
        except (UserError, *ABSURD) as error:
            answers |= dict.fromkeys(asked, failure_of(error))
    tables.prepare([need for model, asked in models for need in model.needs(asked.values())], lenient=True)
    for model, asked in models:
        waiting = list(asked.items())
        for start in range(0, len(waiting), model.at_once):
            some = waiting[start : start + model.at_once]
            answers |= zip((key for key, _ in some), model.answer([question for _, question in some]), strict=True)
            if progress:
                progress(len(answers), len(distinct))
    written = {key: _columns(answers[key], distinct[key], explain) for key in distinct}
    return [{**row, "routing": routing_text(row), **written[key]} for key, row in zip(keys, rows, strict=True)]


def _columns(answer: Answer, row: Row, explain: bool) -> Row:
    """The OUTPUT columns of a row."""
    if isinstance(answer, Failure):
        return {**dict.fromkeys(OUTPUT), "tile": row.get("tile"), "error": answer.text}
    timing = answer.timing
    columns = {
        "latency_us": round(timing.latency_us, 4),
        "low_us": round(timing.low_us, 4),
        "high_us": round(timing.high_us, 4),
        "grade": timing.grade,
        "bound_us": round(timing.bound_us, 4),
        "limiter": timing.limiter,
        "tile": _tile_text(answer),
        "warning": "; ".join(answer.notes),
        "error": "",
    }
    if explain:
        columns["parts_us"] = json.dumps({name: round(value, 3) for name, value in timing.parts_us.items()})
    return columns


def _tile_text(estimate: Estimate) -> str:
    """JSON of the tile, or of both GEMMs' tiles; empty where the answer has no tile."""
    tiles = [tile.as_dict() for tile in estimate.tiles]
    if len(tiles) == 2:
        return json.dumps({"up": tiles[0], "down": tiles[1]})
    return json.dumps(tiles[0]) if tiles else ""


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
    answered = predict_rows(
        rows, tables, explain=explain, tuned=Path(tuned) if tuned is not None else None, progress=running
    )
    if out is not None:
        write_table(Path(out), answered)
    return answered
