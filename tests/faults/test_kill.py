"""``kill -9`` during a search, again and again; then the same command finishes with exactly the trials asked for."""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import space_text

TRIALS = 60


def command(folder: Path, trials: int = TRIALS) -> list[str]:
    storage = f"sqlite:///{folder / 's.db'}"
    arguments = ["search", str(folder / "space.toml"), "--trials", str(trials), "--storage", storage, "--json"]
    return [sys.executable, "-m", "moe_codesign.cli", *arguments, "--out", str(folder / "out"), "--jobs", "2"]


def stored(folder: Path) -> int:
    try:
        with sqlite3.connect(folder / "s.db", timeout=10) as connection:
            return int(connection.execute("select count(*) from moe_codesign_trials").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


def kill_once_it_has(folder: Path, trials: int, wait_s: float) -> None:
    process = subprocess.Popen(
        command(folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while stored(folder) < trials and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(wait_s)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_searches_end_whole(tmp_path: Path, seed: int) -> None:
    (tmp_path / "space.toml").write_text(space_text(chips=["h100_sxm", "trainium2"], modes=["joint", "nested"]))
    rng = random.Random(seed)
    kills = [0, 3, 11, 24, 40, 52]
    for trials in kills:
        kill_once_it_has(tmp_path, trials, rng.uniform(0, 0.08))
    before = stored(tmp_path)
    assert 0 < before < TRIALS, "the kills must fall inside the search"
    done = subprocess.run(command(tmp_path), capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["trials"] == TRIALS
    with sqlite3.connect(tmp_path / "s.db") as connection:
        rows = connection.execute("select chip, mode, number from moe_codesign_trials").fetchall()
        states = connection.execute("select state, count(*) from trials group by state").fetchall()
    assert len(rows) == len(set(rows)) == TRIALS
    assert states == [("COMPLETE", TRIALS)], "Optuna has each trial once, finished"
    for chip, mode in {(c, m) for c, m, _ in rows}:
        numbers = sorted(n for c, m, n in rows if (c, m) == (chip, mode))
        assert numbers == list(range(len(numbers)))


def test_interrupt_keeps_everything_and_exits_130(tmp_path: Path) -> None:
    (tmp_path / "space.toml").write_text(space_text(min_quality_ratio=None))
    # So many that the search cannot end between the look at its storage and the signal, on a busy machine too.
    trials = 5 * TRIALS
    # A shell's background jobs ignore the signal, and so does what they start; one that handles it starts none that do.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(command(tmp_path, trials), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, before)
    while stored(tmp_path) < 5:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    kept = json.loads(out)
    assert kept["interrupted"]
    assert 5 <= kept["trials"] < trials
    asked = kept["trials"] + 5
    done = subprocess.run(command(tmp_path, asked), capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["trials"] == asked
