"""Searches that are killed, and many writers at once: one process imports everything and forks for each.

``python -m tests.faults.searches WHAT FOLDER-OR-URL [TIMES]`` prints one JSON object.
"""

import json
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy as sa

import moe_codesign as mc
from moe_codesign.domain.shape import MoEShape
from moe_codesign.domain.tile_pair import TilePair
from moe_codesign.domain.trial import Mode, Outcome, Refused, Trial
from moe_codesign.storage.database import Database
from moe_codesign.storage.studies import Studies
from moe_codesign.study.evaluate import Evaluator
from tests.conftest import make_space
from tests.domain.test_results import FAILURE

WRITERS, ROWS = 8, 500
MORE = 3
DEADLY = 2
"""Number of the trial that takes its process down."""


def search(folder: Path, trials: int) -> None:
    mc.search(make_space(), trials=trials, storage=storage(folder))


def storage(folder: Path) -> str:
    return f"sqlite:///{folder / 's.db'}"


def forked(function: Callable[[], object], kill_after_s: float | None = None) -> int:
    """The exit status of a function in a forked child; negative for a signal."""
    child = os.fork()
    if child == 0:
        try:
            function()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if kill_after_s is not None:
        time.sleep(kill_after_s)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed(folder: Path, times: int) -> dict[str, Any]:
    """So many ``kill -9`` at random times of a search, which is asked for a few trials more each time; then its end."""
    (warm := folder / "warm").mkdir()
    search(warm, MORE)  # what it imports and draws up, all forks have then
    start = time.monotonic()
    search(warm, 2 * MORE)
    took = time.monotonic() - start
    rng = random.Random(0)
    kills = 0
    # A search that was done before its kill does not count, and not all of them may fall before the first trial.
    while kills < times or not stored(folder):
        asked = len(stored(folder)) + MORE
        kills += forked(partial(search, folder, asked), rng.uniform(0, took)) == -signal.SIGKILL
    before = len(stored(folder))
    last = forked(partial(search, folder, before + MORE))
    return {"before": before, "last": last, **found(folder)}


def deadly(folder: Path) -> dict[str, Any]:
    """The same search again and again, one of whose trials kills its process, however often it is tried."""
    evaluate = Evaluator.evaluate

    def die(self: Evaluator, shape: MoEShape, tiles: dict[str, TilePair] | None, *, seed: int) -> Outcome:
        if seed == DEADLY:
            os.kill(os.getpid(), signal.SIGKILL)
        return evaluate(self, shape, tiles, seed=seed)

    Evaluator.evaluate = die  # type: ignore[method-assign]
    statuses: list[int] = []
    while not statuses or (statuses[-1] and len(statuses) < 10):
        statuses.append(forked(lambda: mc.search(make_space(), trials=6, storage=storage(folder))))
    return {"statuses": statuses, **found(folder)}


def all_at_once(functions: list[Callable[[], object]]) -> list[int]:
    """Exit statuses of functions in forked children that begin together."""
    children = []
    gate_out, gate_in = os.pipe()
    for function in functions:
        child = os.fork()
        if child == 0:
            os.close(gate_in)
            os.read(gate_out, 1)
            try:
                function()
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        children.append(child)
    os.close(gate_in)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def write(url: str, mode: Mode, first: int) -> None:
    with Database(url) as database:
        studies = Studies(database)
        for number in range(first, first + ROWS):
            studies.put("s", Trial(chip="a chip", mode=mode, number=number, outcome=Refused(FAILURE)))


def writers(url: str) -> dict[str, Any]:
    """Eight processes make one database and write 500 rows each."""
    modes: tuple[Mode, ...] = ("joint", "nested")
    statuses = all_at_once([partial(write, url, modes[n % 2], n // 2 * ROWS) for n in range(WRITERS)])
    with Database(url) as database:
        rows = [(trial.mode, trial.number) for trial in Studies(database).trials("s")]
    return {"statuses": statuses, "rows": len(rows), "distinct": len(set(rows))}


def beginners(url: str) -> dict[str, Any]:
    """Four searches make one database, ours and Optuna's tables, and all run."""

    def begin(number: int) -> None:
        mc.search(make_space(), trials=3, storage=url, study=f"study {number}")

    statuses = all_at_once([partial(begin, n) for n in range(4)])
    return {"statuses": statuses, "trials": [len(mc.load_study(f"study {n}", storage=url).trials) for n in range(4)]}


def stored(folder: Path) -> list[tuple[str, str, int]]:
    if not (folder / "s.db").exists():
        return []
    engine = sa.create_engine(storage(folder))
    try:
        with engine.connect() as connection:
            rows = connection.execute(sa.text("select chip, mode, number from moe_codesign_trials")).all()
    except sa.exc.OperationalError:  # killed before its tables were made
        return []
    finally:
        engine.dispose()
    return [(row.chip, row.mode, row.number) for row in rows]


def found(folder: Path) -> dict[str, Any]:
    """What our tables and Optuna's have in the end."""
    states: Counter[str] = Counter()
    for name in optuna.get_all_study_names(storage(folder)):
        states.update(t.state.name for t in optuna.load_study(study_name=name, storage=storage(folder)).trials)
    result = mc.load_study("test", storage=storage(folder))
    failures = {trial.number: str(trial.failure) for trial in result.trials if trial.failure}
    return {"rows": stored(folder), "states": states, "failures": failures}


if __name__ == "__main__":
    what, where, *times = sys.argv[1:]
    if what in ("writers", "beginners"):
        print(json.dumps({"writers": writers, "beginners": beginners}[what](where)))
    else:
        print(json.dumps(killed(Path(where), int(times[0])) if times else deadly(Path(where))))
