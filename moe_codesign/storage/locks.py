"""Locks on names, which the system or the server releases when the process that holds them dies, however it dies."""

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import sqlalchemy as sa
from filelock import FileLock, Timeout

from moe_codesign.errors import MachineError, UserError, first_line

Held = Callable[[], None]
"""Whether a lock is still held: raises MachineError where it is not."""


def lock_key(name: str) -> int:
    """The number that a server knows a lock by."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")


@contextlib.contextmanager
def file_lock(database: Path, name: str, wait_s: float) -> Iterator[Held]:
    """Hold a name beside a database file.

    Raises:
        UserError: another process holds it after so long a wait, or the lock's file cannot be opened.
    """
    path = f"{database}.{hashlib.sha256(name.encode()).hexdigest()[:8]}.lock"
    lock = FileLock(path, timeout=wait_s)
    try:
        lock.acquire()
    except Timeout:
        raise _busy(name) from None
    except OSError as error:
        raise UserError(
            f"study {name!r} cannot be locked ({path}: {error.strerror or first_line(error)})",
            fix="remove that file, or give another --storage",
        ) from None
    try:
        yield lambda: None
    finally:
        lock.release()


@contextlib.contextmanager
def server_lock(engine: sa.Engine, name: str, wait_s: float) -> Iterator[Held]:
    """Hold a name on a PostgreSQL server, by a connection that is open as long.

    Raises:
        UserError: another process holds it after so long a wait.
    """
    with lasting_connection(engine) as connection:
        until = time.monotonic() + wait_s
        while not connection.scalar(sa.select(sa.func.pg_try_advisory_lock(lock_key(name)))):
            if time.monotonic() >= until:
                raise _busy(name)
            time.sleep(0.05)
        try:
            yield lambda: check_connection(connection, name)
        finally:
            unlock(connection, name)


@contextlib.contextmanager
def lasting_connection(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A connection whose statements commit by themselves.

    A transaction that idles as long as a search runs holds back the server's clean-up, and many servers end it after
    some minutes, and with it the locks of its connection.
    """
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if engine.dialect.name == "postgresql":
            close_when_idle(connection, 0.0)
        yield connection


def close_when_idle(connection: sa.Connection, limit_s: float) -> None:
    """Let the server close a connection that asks nothing for so long; 0 for never."""
    with contextlib.suppress(sa.exc.DBAPIError):  # an older server, which has no such limit
        connection.execute(sa.text(f"set idle_session_timeout = {round(1000 * limit_s)}"))


def check_connection(connection: sa.Connection, study: str) -> None:
    """Raise MachineError where the server has closed a connection that holds a lock."""
    try:
        connection.scalar(sa.select(1))
    except (sa.exc.SQLAlchemyError, MachineError):
        raise MachineError(
            f"the server has closed the connection that holds study {study!r}; what was stored is safe, and the same "
            "command goes on"
        ) from None


def unlock(connection: sa.Connection, name: str) -> None:
    """Release a lock of this connection."""
    with contextlib.suppress(sa.exc.SQLAlchemyError, MachineError):  # the lock goes with the connection
        connection.scalar(sa.select(sa.func.pg_advisory_unlock(lock_key(name))))


def _busy(name: str) -> UserError:
    return UserError(f"study {name!r} is being run by another process", fix="wait for it, or give another --study")
