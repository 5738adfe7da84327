"""Ten thousand trials by four processes on a PostgreSQL server, two of which are killed with -9 on the way.

Starts a server of its own, unless ``--storage`` names one. Counts what the database has in the end, in our tables and
in Optuna's, and exits with 1 where a trial is lost or doubled. Writes results/search/many_processes.md.

    python benchmarks/search/many_processes.py [--trials 10000] [--processes 4] [--storage URL]
"""

import argparse
import contextlib
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import optuna
import sqlalchemy as sa

sys.path.insert(0, str(Path(__file__).parents[2]))

import moe_codesign as mc
from tests.postgresql import fresh_database, server

SPACE = Path(__file__).with_suffix(".toml")
KILLED_AT = (0.3, 0.6)
"""Shares of the trials after which the first and the second process are killed."""


@dataclass(frozen=True)
class Kill:
    """What a kill found: trials that were stored by then, and claims that the process had."""

    trials: int
    claims: int


@dataclass(frozen=True)
class Found:
    """What the database has in the end."""

    asked: int
    numbers: list[int]
    points: int
    states: Counter[str]
    claims: int

    def faults(self) -> list[str]:
        """What is wrong with it, one line each."""
        wrong = []
        if lost := set(range(self.asked)) - set(self.numbers):
            wrong.append(f"{len(lost)} trials are lost")
        if len(self.numbers) != len(set(self.numbers)) or len(self.numbers) > self.asked:
            wrong.append("a number was given twice, or more trials were run than were asked for")
        if self.points != len(self.numbers):
            wrong.append(f"{len(self.numbers) - self.points} points were evaluated twice")
        if self.states != {"COMPLETE": self.asked}:
            wrong.append(f"Optuna has {dict(self.states)}")
        if self.claims:
            wrong.append(f"{self.claims} claims are left")
        return wrong


def scalar(engine: sa.Engine, statement: str, **values: str) -> int:
    with engine.connect() as connection:
        return int(connection.scalar(sa.text(statement), values) or 0)


def stored(engine: sa.Engine) -> int:
    try:
        return scalar(engine, "select count(*) from moe_codesign_trials")
    except sa.exc.ProgrammingError:  # the first process has not made the tables yet
        return 0


def killed_when(engine: sa.Engine, process: subprocess.Popen[bytes], trials: int) -> Kill:
    """Kill a process as soon as so many trials are stored."""
    while stored(engine) < trials:
        if process.poll() is not None:
            sys.exit(f"a process ended by itself, with exit code {process.returncode}")
        time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    of_it = "select count(*) from moe_codesign_claims where worker like :name"
    return Kill(stored(engine), scalar(engine, of_it, name=f"%:{process.pid}:%"))


def found(url: str, engine: sa.Engine, asked: int) -> Found:
    trials = mc.load_study(SPACE.stem, storage=url).trials
    states: Counter[str] = Counter()
    for name in optuna.get_all_study_names(url):
        study = optuna.load_study(study_name=name, storage=url)
        states.update(trial.state.name for trial in study.get_trials(deepcopy=False))
    return Found(
        asked=asked,
        numbers=sorted(trial.number for trial in trials),
        points=len({tuple(sorted(trial.params.items())) for trial in trials}),
        states=states,
        claims=scalar(engine, "select count(*) from moe_codesign_claims"),
    )


def page(end: Found, kills: list[Kill], processes: int, seconds: float, cpu_s: float) -> str:
    faults = end.faults()
    lines = [
        "# Many processes on one study",
        "",
        f"{processes} processes run `moe-codesign search benchmarks/search/many_processes.toml --trials {end.asked}`",
        "on one PostgreSQL server at the same time, with the random sampler, on the cost model alone. The first two",
        "are killed with -9 on their way. Written by `make study-search`.",
        "",
        "| | |",
        "| --- | --- |",
        f"| trials asked for, over all processes | {end.asked:,} |",
        f"| trials stored | {len(end.numbers):,} |",
        f"| different numbers | {len(set(end.numbers)):,} |",
        f"| different points | {end.points:,} |",
        f"| trials that Optuna has, by state | {', '.join(f'{n:,} {state}' for state, n in end.states.items())} |",
        *(
            f"| kill {place} | after {kill.trials:,} trials; it had {kill.claims} in work, which another finished |"
            for place, kill in enumerate(kills, 1)
        ),
        f"| claims left | {end.claims} |",
        f"| verdict | {'; '.join(faults) or 'no trial is lost, and none doubled'} |",
        f"| time | {seconds:,.0f} s, {end.asked / seconds:,.0f} trials a second on {os.cpu_count()} cores |",
        f"| processor time of the processes, without the server's | {1000 * cpu_s / end.asked:.0f} ms a trial |",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", default=10_000, type=int)
    parser.add_argument("--processes", default=4, type=int)
    parser.add_argument("--storage", help="URL of a PostgreSQL server in which a database may be made")
    parser.add_argument("--out", default=Path("results/search"), type=Path)
    options = parser.parse_args()
    with contextlib.ExitStack() as running:
        url = fresh_database(options.storage or running.enter_context(server()))
        folder = running.enter_context(tempfile.TemporaryDirectory())
        engine = sa.create_engine(url)
        running.callback(engine.dispose)
        command = [sys.executable, "-m", "moe_codesign.cli", "search", str(SPACE), "--trials", str(options.trials)]
        command += ["--storage", url, "--jobs", "1"]
        begun = time.monotonic()
        processes = [
            subprocess.Popen([*command, "--out", f"{folder}/{place}"], stdout=subprocess.DEVNULL)
            for place in range(options.processes)
        ]
        kills = [
            killed_when(engine, process, round(share * options.trials))
            for process, share in zip(processes, KILLED_AT, strict=False)
        ]
        while stored(engine) < options.trials and any(process.poll() is None for process in processes):
            time.sleep(0.2)
        seconds = time.monotonic() - begun
        codes = [process.wait() for process in processes]
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        end = found(url, engine, options.trials)
    text = page(end, kills, options.processes, seconds, used.ru_utime + used.ru_stime)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "many_processes.md").write_text(text, encoding="utf-8")
    print(text)
    if end.faults() or any(codes[len(kills) :]):
        sys.exit(1)


if __name__ == "__main__":
    main()
