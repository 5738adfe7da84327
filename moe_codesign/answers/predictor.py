"""Times for rows of a problem table. A row that cannot be answered says why; the others are unaffected."""

import functools
import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moe_codesign.answers.quality_asked import QualityAsked
from moe_codesign.answers.row_quality import RowQuality
from moe_codesign.chips import Chip, load_chip
from moe_codesign.compiler.tile_table import Tables
from moe_codesign.cost.estimate import ABSURD, Answer, CostModel, Estimate, failure_of, slowest
from moe_codesign.cost.model_for import kind_of, model_for
from moe_codesign.domain.failure import Failure, FailureKind
from moe_codesign.domain.question import Question
from moe_codesign.errors import UserError
from moe_codesign.formats.columns import OUTPUT
from moe_codesign.formats.headers import headers_of, unused
from moe_codesign.formats.problem_rows import BadRow, Row, by_layer, routing_text, text
from moe_codesign.formats.questions import question_of
from moe_kernels.tile import TileConfig

Key = tuple[str, ...]
"""All that a row asks: the columns that it gives, then their values as text."""
_Kind = tuple[Chip, Hashable]


@dataclass(frozen=True)
class _Read:
    """What a row asks by our names of the columns, what of it is not read, and why it cannot be read at all."""

    asked: Row
    warnings: tuple[str, ...] = ()
    failure: Failure | None = None
    are_texts: bool = True
    """Whether every header is a text; another one is not written."""

    @functools.cached_property
    def key(self) -> Key:
        return (*self.asked, *map(str, self.asked.values()))


class Predictor:
    """Answers rows, however many at a time; its models are made once.

    Args:
        tables: compiled tiles; what the rows need and the cache lacks is compiled first, in one go for each call.
        explain: add ``parts_us``, JSON of where the time goes.
        tuned: folder of a stack's tuned files, which come before its default rule.
        quality: beside which model quality is asked for; None adds no columns of quality.

    Raises:
        UserError: quality cannot be judged so.
    """

    def __init__(
        self,
        tables: Tables,
        *,
        explain: bool = False,
        tuned: Path | None = None,
        quality: QualityAsked | None = None,
    ) -> None:
        self._quality = RowQuality(quality.judge()) if quality is not None else None
        self._tables = tables
        self._explain = explain
        self._tuned = tuned
        self._chips: dict[str, Chip] = {}
        self._models: dict[_Kind, CostModel[Any] | Failure] = {}

    def answer(self, rows: Sequence[Row], progress: Callable[[int, int], None] | None = None) -> list[Row]:
        """Answer every row, in order.

        Args:
            rows: one problem each, with the columns of docs/predict.md. Values may be text, as in CSV.
            progress: called with (distinct problems done, distinct problems).

        Returns:
            The rows with OUTPUT columns added; ``error`` is empty where there is an answer. ``routing`` says which
            routing was taken where the row named none.
        """
        read = [_read(row) for row in rows]
        distinct = {one.key: one.asked for one in read if one.failure is None}
        answers = self._answers(distinct, progress)
        answered = [
            _answered(row, one, one.failure or answers[one.key], self._explain)
            for row, one in zip(rows, read, strict=True)
        ]
        if self._quality is not None:
            asked = (one.asked if one.failure is None else None for one in read)
            for row, columns in zip(answered, self._quality.columns(asked), strict=True):
                row.update(columns)
        return answered

    def _answers(self, distinct: Mapping[Key, Row], progress: Callable[[int, int], None] | None) -> dict[Key, Answer]:
        answers: dict[Key, dict[int | None, Answer]] = {key: {} for key in distinct}
        groups: dict[_Kind, dict[tuple[Key, int | None], Question]] = {}
        for key, row in distinct.items():
            try:
                chip = self._chip(text(row, "chip"))
                for layer, one in by_layer(row).items():
                    question = question_of(one, chip)
                    groups.setdefault((chip, kind_of(question)), {})[key, layer] = question
            except (UserError, *ABSURD) as error:
                answers[key] = {None: failure_of(error)}
        models: list[tuple[CostModel[Question], dict[tuple[Key, int | None], Question]]] = []
        for kind, asked in groups.items():
            model = self._model(kind, next(iter(asked.values())))
            if isinstance(model, Failure):
                for key, layer in asked:
                    answers[key][layer] = model
            else:
                models.append((model, asked))
        self._tables.prepare([need for model, asked in models for need in model.needs(asked.values())], lenient=True)
        for model, asked in models:
            waiting = list(asked.items())
            for start in range(0, len(waiting), model.at_once):
                some = waiting[start : start + model.at_once]
                found = model.answer([question for _, question in some])
                for ((key, layer), _), answer in zip(some, found, strict=True):
                    answers[key][layer] = answer
                if progress:
                    progress(sum(bool(one) for one in answers.values()), len(distinct))
        return {key: slowest(by_layers)[1] for key, by_layers in answers.items()}

    def _chip(self, name: str) -> Chip:
        """A chip file is read once: all rows of a table are about the same one."""
        if name not in self._chips:
            self._chips[name] = load_chip(name)
        return self._chips[name]

    def _model(self, kind: _Kind, question: Question) -> CostModel[Any] | Failure:
        if kind not in self._models:
            try:
                self._models[kind] = model_for(question, kind[0], self._tables, tuned=self._tuned)
            except (UserError, *ABSURD) as error:
                self._models[kind] = failure_of(error)
        return self._models[kind]


def _read(row: Row) -> _Read:
    if isinstance(row, BadRow):
        return _Read({}, (), Failure(FailureKind.UNSUPPORTED, row.reason))
    headers = headers_of(tuple(row))
    try:
        asked = headers.renamed(row)
    except UserError as error:
        return _Read({}, headers.warnings, failure_of(error), headers.are_texts)
    return _Read(asked, headers.warnings + unused(asked), None, headers.are_texts)


def _answered(row: Row, read: _Read, answer: Answer, explain: bool) -> Row:
    """The row, with the columns of its answer."""
    own = row if read.are_texts else {name: value for name, value in row.items() if isinstance(name, str)}
    notes = answer.notes if isinstance(answer, Estimate) else ()
    return {
        **own,
        "routing": routing_text(read.asked),
        **_columns(answer, read.asked, explain),
        "warning": "; ".join((*read.warnings, *notes)),
    }


def _columns(answer: Answer, row: Row, explain: bool) -> Row:
    """The OUTPUT columns of a row, but for its warnings."""
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
        "tile": _tile_text(answer.tiles),
        "warning": "",
        "error": "",
    }
    if explain:
        columns["parts_us"] = json.dumps({name: round(value, 3) for name, value in timing.parts_us.items()})
    return columns


@functools.lru_cache(maxsize=4096)
def _tile_text(tiles: tuple[TileConfig, ...]) -> str:
    """JSON of the tile, or of both GEMMs' tiles; empty where the answer has no tile."""
    fields = [tile.as_dict() for tile in tiles]
    if len(fields) == 2:
        return json.dumps({"up": fields[0], "down": fields[1]})
    return json.dumps(fields[0]) if fields else ""
