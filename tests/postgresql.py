"""A PostgreSQL server of the tests' own, and a fresh database in it for each test.

``MOE_CODESIGN_TEST_POSTGRESQL`` may name another server's URL, in which databases may be made.
"""

import contextlib
import glob
import importlib.util
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa


class NoServerError(Exception):
    """No server can be started here, and why."""


@contextlib.contextmanager
def server() -> Iterator[str]:
    """Start a server that only this machine's processes reach; yields its URL.

    Raises:
        NoServerError: there is none to start.
    """
    if importlib.util.find_spec("psycopg") is None:
        raise NoServerError("psycopg is not installed; pip install 'moe-codesign[postgresql]'")
    if url := os.environ.get("MOE_CODESIGN_TEST_POSTGRESQL"):
        yield url
        return
    programs = _programs()
    if programs is None:
        raise NoServerError("there is no PostgreSQL server on this machine; apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="pg-"))  # a socket's path may have 107 characters
    user = None
    if os.geteuid() == 0:  # the server refuses to run as root
        user = "postgres"
        shutil.chown(folder, user)

    def run(program: str, *arguments: str) -> None:
        done = subprocess.run(
            [programs / program, *arguments],
            user=user, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    data = folder / "data"
    run("initdb", "--pgdata", str(data), "--username=moe", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C")
    settings = f"-c listen_addresses='' -c unix_socket_directories='{folder}' -c fsync=off"
    run("pg_ctl", "--pgdata", str(data), "--wait", "--log", str(folder / "log"), "--options", settings, "start")
    try:
        yield f"postgresql+psycopg://moe:s3cr3t@/postgres?host={folder}"
    finally:
        run("pg_ctl", "--pgdata", str(data), "--mode=immediate", "stop")
        shutil.rmtree(folder)


def _programs() -> Path | None:
    """The folder of the server's programs, which Debian does not put on the path."""
    found = [*glob.glob("/usr/lib/postgresql/*/bin"), *glob.glob("/usr/pgsql-*/bin")]  # noqa: PTH207
    if (on_path := shutil.which("initdb")) is not None:
        found.append(str(Path(on_path).parent))
    return next((Path(one) for one in reversed(found) if (Path(one) / "initdb").exists()), None)


def fresh_database(url: str) -> str:
    """The URL of a new, empty database on a server."""
    name = f"test_{secrets.token_hex(6)}"
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(f"create database {name}"))
    engine.dispose()
    return sa.make_url(url).set(database=name).render_as_string(hide_password=False)
