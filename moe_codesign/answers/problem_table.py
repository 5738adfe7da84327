"""A table of problems answered a part at a time, by several processes, in the order of its rows."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from moe_codesign.answers.predictor import Predictor
from moe_codesign.answers.quality_asked import QualityAsked
from moe_codesign.compiler.build import Progress
from moe_codesign.compiler.tile_table import Tables
from moe_codesign.errors import MachineError, UserError
from moe_codesign.execution import Done, Pool
from moe_codesign.formats.problem_rows import Row

PART = 2000
"""Rows that are answered, and written, at a time."""
_TIME_LIMIT_S = 3600.0
"""Time limit for one part. Its rows are arithmetic; compiles have limits of their own."""


@dataclass(frozen=True, kw_only=True)
class How:
    """How problems are answered.

    Args:
        explain: add the column ``parts_us``.
        tuned: folder of a stack's tuned files.
        recompile: compile here what the facts that come with the package would answer.
        jobs: processes that compile, and that answer.
        quality: beside which model quality is asked for; None adds no columns of quality.

    Raises:
        UserError: ``tuned`` is no folder.
    """

    explain: bool = False
    tuned: Path | None = None
    recompile: bool = False
    jobs: int = 1
    quality: QualityAsked | None = None

    def __post_init__(self) -> None:
        if self.tuned is not None and not self.tuned.is_dir():
            fix = "give a folder of E=..,N=..,device_name=...json"
            raise UserError("folder of tuned files", value=str(self.tuned), fix=fix)

    def predictor(self, *, jobs: int, compiling: Progress | None = None) -> Predictor:
        """What answers so."""
        tables = Tables(jobs=jobs, progress=compiling, recompile=self.recompile)
        return Predictor(tables, explain=self.explain, tuned=self.tuned, quality=self.quality)


def answered_parts(
    rows: Iterable[Row], how: How, *, compiling: Progress | None = None, running: Callable[[int], None] | None = None
) -> Iterator[list[Row]]:
    """The answered rows, in order, a part at a time.

    The first part is answered in this process, which compiles what it needs; where more follow, child processes answer
    them.

    Args:
        rows: the problems.
        how: see :class:`How`.
        compiling: called with how many tiles are compiled, of how many.
        running: called with how many rows more are answered.

    Raises:
        MachineError: a child process ended without an answer.
    """
    parts = _parts(rows)
    first = next(parts, [])
    predictor = how.predictor(jobs=how.jobs, compiling=compiling)
    yield _reported(predictor.answer(first), running)
    second, third = next(parts, []), next(parts, [])
    if how.jobs == 1 or not third:
        for part in itertools.chain(filter(None, (second, third)), parts):
            yield _reported(predictor.answer(part), running)
        return
    waiting: dict[int, list[Row]] = {}
    place = 0
    numbered = enumerate(itertools.chain((second, third), parts))
    with Pool(how.jobs, initializer=_start, initargs=(how,)) as pool:
        for (number, _), called in pool.map_unordered(_answer, numbered, time_limit_s=_TIME_LIMIT_S):
            if not isinstance(called, Done):
                raise MachineError(f"a part of the table was not answered ({called})")
            waiting[number] = called.value
            while place in waiting:
                yield _reported(waiting.pop(place), running)
                place += 1


def _parts(rows: Iterable[Row]) -> Iterator[list[Row]]:
    source = iter(rows)
    while part := list(itertools.islice(source, PART)):
        yield part


def _reported(rows: list[Row], running: Callable[[int], None] | None) -> list[Row]:
    if running:
        running(len(rows))
    return rows


_of_process: Predictor | None = None


def _start(how: How) -> None:
    global _of_process
    _of_process = how.predictor(jobs=1)


def _answer(part: tuple[int, list[Row]]) -> list[Row]:
    assert _of_process is not None
    return _of_process.answer(part[1])
