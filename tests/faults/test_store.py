"""Many writers, lost connections, links, full disks, damage: results are kept, and what fails says so in one line."""

import dataclasses
import os
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import moe_codesign as mc
from moe_codesign.domain.trial import Refused, Trial
from moe_codesign.errors import MachineError, UserError
from moe_codesign.storage import database as module
from moe_codesign.storage.database import Database, shown
from moe_codesign.storage.studies import Studies
from moe_codesign.study.evaluate import Evaluator
from tests.command import invoke
from tests.conftest import make_space, space_text
from tests.domain.test_results import FAILURE
from tests.faults.searches import ROWS, WRITERS
from tests.faults.test_trials import in_forks

TRIAL = Trial(chip="a chip", mode="joint", number=0, outcome=Refused(FAILURE))


def test_eight_writers_make_one_database_and_lose_nothing(storage_url: str) -> None:
    found = in_forks("writers", storage_url)
    assert found == {"statuses": [0] * WRITERS, "rows": WRITERS * ROWS, "distinct": WRITERS * ROWS}


def test_searches_begin_a_new_database_together(storage_url: str) -> None:
    assert in_forks("beginners", storage_url) == {"statuses": [0] * 4, "trials": [3] * 4}


def test_a_search_goes_on_where_it_stopped(storage_url: str) -> None:
    mc.search(make_space(), trials=4, storage=storage_url)
    assert [t.number for t in mc.search(make_space(), trials=8, storage=storage_url).trials] == list(range(8))


def test_a_link_to_a_database_has_the_same_lock(tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / "real.db")
    with (
        Database(f"sqlite:///{tmp_path / 'real.db'}") as real,
        Database(f"sqlite:///{tmp_path / 'link.db'}") as link,
        real.lock("s"),
        pytest.raises(UserError, match="another process"),
        link.lock("s"),
    ):
        pass


def test_a_lock_file_that_leads_elsewhere_is_one_line(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    with Database(f"sqlite:///{tmp_path / 's.db'}") as database:
        with database.lock("s"):
            (lock,) = (path for path in tmp_path.glob("s.db.*.lock") if _is_held(path))
        lock.unlink(missing_ok=True)
        lock.symlink_to(victim)
        with pytest.raises(UserError, match=r"cannot be locked.*remove that file"), database.lock("s"):
            pass
    assert victim.read_text() == "precious"


def _is_held(path: Path) -> bool:
    import fcntl

    with path.open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


class TestServer:
    def test_a_lock_outlives_the_limit_on_idle_transactions(self, postgresql_url: str) -> None:
        _execute(postgresql_url, "alter role moe set idle_in_transaction_session_timeout = 100")
        _execute(postgresql_url, "alter role moe set idle_session_timeout = 100")
        try:
            with Database(postgresql_url) as database, Database(postgresql_url) as other, database.lock("s") as held:
                time.sleep(0.5)
                held()
                with pytest.raises(UserError, match="another process"), other.lock("s"):
                    pass
                idle = "select count(*) from pg_stat_activity where state like 'idle in transaction%'"
                with other.engine.connect() as connection:
                    assert connection.scalar(sa.text(idle)) == 0
        finally:
            _execute(postgresql_url, "alter role moe reset idle_in_transaction_session_timeout")
            _execute(postgresql_url, "alter role moe reset idle_session_timeout")

    def test_a_search_whose_lock_is_lost_stops_in_one_line_and_goes_on_later(
        self, postgresql_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        evaluate = Evaluator.evaluate

        def lose(self: Evaluator, *arguments: Any, seed: int) -> Any:
            if seed == 2:
                _execute(
                    postgresql_url,
                    "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory'",
                )
            return evaluate(self, *arguments, seed=seed)

        monkeypatch.setattr(Evaluator, "evaluate", lose)
        with pytest.raises(MachineError, match="the server has closed the connection that holds study 'test'"):
            mc.search(make_space(), trials=6, storage=postgresql_url)
        monkeypatch.undo()
        assert [t.number for t in mc.search(make_space(), trials=6, storage=postgresql_url).trials] == list(range(6))

    def test_the_password_is_never_printed(self, postgresql_url: str, tmp_path: Path) -> None:
        (tmp_path / "space.toml").write_text(space_text())
        search = ("search", "space.toml", "--trials", "2", "--storage", postgresql_url)
        refused = postgresql_url.replace("/test_", "/missing_")
        outputs = [
            invoke(*search, cwd=tmp_path),
            invoke(*search, "--json", cwd=tmp_path),
            invoke("report", "none", "--storage", postgresql_url, cwd=tmp_path),
            invoke("list", "studies", "--storage", refused, cwd=tmp_path),
            invoke("list", "studies", "--storage", "postgresql+psycopg://moe:s3cr3t@s3cr3t@host:x/db", cwd=tmp_path),
            invoke("list", "studies", "--storage", "postgresql+nothing://moe:s3cr3t@host/db", cwd=tmp_path),
        ]
        assert [done.returncode for done in outputs] == [0, 0, 2, 2, 2, 2]
        for done in outputs:
            assert "s3cr3t" not in done.stdout + done.stderr
        assert "moe:***@" in outputs[0].stdout
        assert [len(done.stderr.splitlines()) for done in outputs[2:]] == [1] * 4


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("sqlite:///a/b@c:d.db", "sqlite:///a/b@c:d.db"),
        ("postgresql://me:p@ss/w:rd@host:5432/db", "postgresql://me:***@host:5432/db"),
        ("postgresql:///db?host=/tmp&password=p&user=me", "postgresql:///db?host=/tmp&password=***&user=me"),
        ("sqlite:///a\x1b[2J.db", "sqlite:///a\\x1b[2J.db"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, text: str) -> None:
    assert shown(url) == text


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_a_database_that_is_gone_with_the_command_is_refused(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="gone with the command"):
        Database(url)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_line_and_keeps_what_was_stored(small_disk: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{small_disk / 's.db'}"
    with Database(url) as database:
        studies = Studies(database)
        stored = 0

        def fill() -> None:
            nonlocal stored
            while True:
                studies.put("s", dataclasses.replace(TRIAL, number=stored))
                stored += 1

        with pytest.raises(MachineError, match=r"full|disk I/O error") as error:
            fill()
        assert "\n" not in str(error.value)
    assert stored > 0
    copy = tmp_path / "copy.db"
    with sqlite3.connect(small_disk / "s.db") as source, sqlite3.connect(copy) as target:
        source.backup(target)
        assert source.execute("pragma integrity_check").fetchone() == ("ok",)
    with Database(f"sqlite:///{copy}") as database:
        assert [trial.number for trial in Studies(database).trials("s")] == list(range(stored))


def test_a_search_on_a_full_disk_is_one_line_and_goes_on_with_room(small_disk: Path, tmp_path: Path) -> None:
    (tmp_path / "space.toml").write_text(space_text())
    command = ("search", "space.toml", "--trials", "60", "--storage", f"sqlite:///{small_disk / 's.db'}")
    done = invoke(*command, cwd=tmp_path)
    assert done.returncode in (1, 2)
    assert [line for line in done.stderr.splitlines() if "moe-codesign:" in line] == done.stderr.splitlines()[-1:]
    assert "Traceback" not in done.stderr


def test_a_database_that_may_only_be_read_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path / 's.db'}"
    ran = mc.search(make_space(), trials=3, storage=url)
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and access(path, mode))  # root may write all
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with Database(url) as database:
        assert Studies(database).trials("test") == ran.trials
        with pytest.raises(MachineError, match="readonly"):
            Studies(database).put("test", TRIAL)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_damaged_database_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "s.db"
    mc.search(make_space(), trials=20, storage=f"sqlite:///{file}")
    with file.open("r+b") as damaged:
        damaged.seek(20_000)
        damaged.write(bytes(60_000))
    done = invoke("report", "test", "--storage", f"sqlite:///{file}", cwd=tmp_path)
    assert done.returncode in (1, 2)
    assert len(done.stderr.splitlines()) == 1
    file.write_bytes(file.read_bytes()[:3000])
    done = invoke("report", "test", "--storage", f"sqlite:///{file}", cwd=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("column", ["identity", "provenance"])
def test_a_half_written_study_is_one_line(column: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 's.db'}"
    mc.search(make_space(), trials=2, storage=url)
    _execute(url, f"update moe_codesign_studies set {column} = substr({column}, 1, 20)")  # noqa: S608 - our own words
    with pytest.raises(UserError, match=r"cannot be read|is not JSON"):
        mc.load_study("test", storage=url)


def test_waiting_for_tables_that_another_makes_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WAIT_S", 5.0)
    url = f"sqlite:///{tmp_path / 's.db'}"
    with Database(url) as database:
        opened = threading.Event()

        def open_it() -> None:
            with Database(url):
                opened.set()

        with database.making_tables():
            thread = threading.Thread(target=open_it)
            thread.start()
            assert not opened.wait(0.3)
        thread.join()
        assert opened.is_set()


def _execute(url: str, statement: str) -> None:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text(statement))
    engine.dispose()
