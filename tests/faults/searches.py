"""Searches that are killed, and many writers at once: one process imports everything and forks for each.

``python -m tests.faults.searches WHAT FOLDER-OR-URL [TIMES]`` prints one JSON object.
"""

import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy as sa

import moe_codesign as mc
from moe_codesign.domain.shape import MoEShape
from moe_codesign.domain.tile_pair import TilePair
from moe_codesign.domain.trial import Mode, Outcome, Refused, Trial
from moe_codesign.storage import claims
from moe_codesign.storage.database import Database
from moe_codesign.storage.studies import Studies
from moe_codesign.study import exact
from moe_codesign.study.evaluate import Evaluator
from tests.conftest import make_space
from tests.domain.test_results import FAILURE

WRITERS, ROWS = 8, 500
MORE = 3
TOGETHER = 40
DEADLY = 2
"""Number of the trial that takes its process down."""


def search(folder: Path, trials: int) -> None:
    mc.search(make_space(), trials=trials, storage=storage(folder))


def storage(folder: Path) -> str:
    return f"sqlite:///{folder / 's.db'}"


def forked(function: Callable[[], object], kill_after_s: float | None = None) -> int:
    """The exit status of a function in a forked child; negative for a signal."""
    child = begin(function)
    if kill_after_s is not None:
        time.sleep(kill_after_s)
        os.kill(child, signal.SIGKILL)
    return ended(child)


def killed(folder: Path, times: int) -> dict[str, Any]:
    """So many ``kill -9`` at random times of a search, which is asked for a few trials more each time; then its end."""
    (warm := folder / "warm").mkdir()
    start = time.monotonic()
    search(warm, MORE)
    took = time.monotonic() - start
    rng = random.Random(0)
    kills = 0
    # A search that was done before its kill does not count, and not all of them may fall before the first trial.
    while kills < times or not stored(folder):
        asked = len(stored(folder)) + MORE
        kills += forked(partial(search, folder, asked), rng.uniform(0, took)) == -signal.SIGKILL
    before = len(stored(folder))
    last = forked(partial(search, folder, before + MORE))
    return {"before": before, "last": last, **found(storage(folder))}


def deadly(folder: Path) -> dict[str, Any]:
    """The same search again and again, one of whose trials kills its process, however often it is tried."""
    die_at_the_deadly()
    statuses: list[int] = []
    while not statuses or (statuses[-1] and len(statuses) < 10):
        statuses.append(forked(lambda: mc.search(make_space(), trials=6, storage=storage(folder))))
    return {"statuses": statuses, **found(storage(folder))}


def die_at_the_deadly() -> None:
    evaluate = Evaluator.evaluate

    def die(self: Evaluator, shape: MoEShape, tiles: dict[str, TilePair] | None, *, seed: int) -> Outcome:
        if seed == DEADLY:
            os.kill(os.getpid(), signal.SIGKILL)
        return evaluate(self, shape, tiles, seed=seed)

    Evaluator.evaluate = die  # type: ignore[method-assign]


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


def together(url: str) -> dict[str, Any]:
    """Four processes on one study, two of which are killed on their way."""
    evaluated = slow_evaluation()
    children = [begin(partial(mc.search, make_space(constraints={}), trials=TOGETHER, storage=url)) for _ in range(4)]
    for child in children[:2]:
        until(lambda: [int(process) for process, _ in read_all(evaluated)].count(child) >= 5)  # noqa: B023 - it is now
        os.kill(child, signal.SIGKILL)
    return {"statuses": [ended(child) for child in children], "evaluated": read_all(evaluated), **found(url)}


def deadly_together(url: str) -> dict[str, Any]:
    """Four processes on one study, a trial of which kills whoever has it."""
    die_at_the_deadly()
    children = [begin(partial(mc.search, make_space(), trials=12, storage=url)) for _ in range(4)]
    return {"statuses": sorted(ended(child) for child in children), **found(url)}


def asleep(url: str) -> dict[str, Any]:
    """One of two processes stops for longer than the other waits for a sign of life, and then goes on."""
    claims.HEARTBEAT_S, claims.GONE_AFTER_S = 0.05, 0.4
    evaluated = slow_evaluation(0.2)
    children = [begin(partial(mc.search, make_space(constraints={}), trials=12, storage=url)) for _ in range(2)]
    until(lambda: [int(process) for process, _ in read_all(evaluated)].count(children[0]) >= 2)
    os.kill(children[0], signal.SIGSTOP)  # in the midst of an evaluation
    other = ended(children[1])
    kills = sum(Counter(number for _, number in read_all(evaluated)).values()) - 12
    os.kill(children[0], signal.SIGCONT)
    return {"other": other, "given_again": kills, "slept": ended(children[0]), **found(url)}


def enumerating(url: str) -> dict[str, Any]:
    """Three processes enumerate one space, one of which is killed on its way, and one alone does, elsewhere."""
    vars(exact)["AT_ONCE"] = 16
    space = make_space(sampler="auto")
    judge = exact.time_points

    def slowly(evaluator: Evaluator, numbers: Iterable[int]) -> exact.TimedPoints:
        time.sleep(0.02)
        return judge(evaluator, numbers)

    vars(exact)["time_points"] = slowly
    children = [begin(partial(mc.search, space, storage=url)) for _ in range(3)]
    until(lambda: count(url, "moe_codesign_batches") >= 6)
    os.kill(children[0], signal.SIGKILL)
    statuses = [ended(child) for child in children]
    left = count(url, "moe_codesign_batches") + count(url, "moe_codesign_claims")
    here, alone = mc.load_study("test", storage=url), mc.search(space, storage=url, study="alone")
    same = here.trials == alone.trials and here.enumerations == alone.enumerations and here.is_exact
    return {"statuses": statuses, "left": left, "same": same, "trials": len(here.trials)}


def slow_evaluation(seconds: float = 0.02) -> Path:
    """Each evaluation takes some time, and notes its process and its trial's number in the folder that is returned."""
    folder, evaluate = Path(tempfile.mkdtemp()), Evaluator.evaluate

    def slowly(self: Evaluator, shape: MoEShape, tiles: dict[str, TilePair] | None, *, seed: int) -> Outcome:
        with (folder / str(os.getpid())).open("a") as file:
            file.write(f"{seed}\n")
        time.sleep(seconds)
        return evaluate(self, shape, tiles, seed=seed)

    Evaluator.evaluate = slowly  # type: ignore[method-assign]
    return folder


def read_all(folder: Path) -> list[tuple[str, int]]:
    return [(file.name, int(line)) for file in folder.iterdir() for line in file.read_text().split()]


def begin(function: Callable[[], object]) -> int:
    """The process of a function in a forked child."""
    child = os.fork()
    if child == 0:
        try:
            function()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return child


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def count(url: str, table: str = "moe_codesign_trials") -> int:
    engine = sa.create_engine(url)
    try:
        with engine.connect() as connection:
            return int(connection.scalar(sa.text(f"select count(*) from {table}")) or 0)  # noqa: S608 - our own words
    except sa.exc.ProgrammingError:  # its tables are not made yet
        return 0
    finally:
        engine.dispose()


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


def found(url: str) -> dict[str, Any]:
    """What our tables and Optuna's have in the end."""
    states: Counter[str] = Counter()
    for name in optuna.get_all_study_names(url):
        states.update(t.state.name for t in optuna.load_study(study_name=name, storage=url).trials)
    trials = [trial for trial in mc.load_study("test", storage=url).trials if trial.mode != "polish"]
    return {
        "rows": [(trial.chip, trial.mode, trial.number) for trial in trials],
        "points": len({tuple(sorted(trial.params.items())) for trial in trials}),
        "states": states,
        "failures": {trial.number: str(trial.failure) for trial in trials if trial.failure},
        "claims": count(url, "moe_codesign_claims"),
    }


ON_A_SERVER = {one.__name__: one for one in (writers, beginners, together, deadly_together, asleep, enumerating)}

if __name__ == "__main__":
    what, where, *times = sys.argv[1:]
    with tempfile.TemporaryDirectory() as warm:  # what a search imports and draws up, all forks have then
        search(Path(warm), MORE)
    if what in ON_A_SERVER:
        print(json.dumps(ON_A_SERVER[what](where)))
    else:
        print(json.dumps(killed(Path(where), int(times[0])) if times else deadly(Path(where))))
