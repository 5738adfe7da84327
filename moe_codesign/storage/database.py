"""The SQL database that results are kept in, beside Optuna's studies: engine, format version, locks."""

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import sqlalchemy as sa
from filelock import FileLock, Timeout

from moe_codesign.errors import UserError, first_line

METADATA = sa.MetaData()
"""Every table of ours; the modules beside this one add theirs."""
FORMAT = 2
"""Number of the tables' layout and of what their JSON columns hold. A change to either counts it up."""
_VERSION = sa.Table(
    "moe_codesign_version",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("format", sa.Integer, nullable=False),
)
_OF_FORMAT_1 = ("moe_codesign_studies", "moe_codesign_trials", "moe_codesign_regressions")
"""Tables of the first format, which had no version."""


class Database:
    """The database behind a URL (``sqlite:///file.db``, ``postgresql+psycopg://...``); ``with`` closes its connections.

    Args:
        url: of SQLAlchemy. An SQLite file that does not exist is made.
        must_exist: an SQLite file that is not there is an error: there is nothing to read in it.

    Raises:
        UserError: it cannot be opened, does not exist, or another version of moe-codesign wrote it.
    """

    def __init__(self, url: str, *, must_exist: bool = False) -> None:
        self.url = url
        if must_exist and not exists(url):
            raise UserError("storage", value=url, fix="there is no such file; run `moe-codesign search` first")
        try:
            file = _sqlite_file(url)
            if file is not None:
                file.parent.mkdir(parents=True, exist_ok=True)
            self.engine = sa.create_engine(url)
            if self.engine.dialect.name == "sqlite":
                sa.event.listen(self.engine, "connect", configure_sqlite)
            with contextlib.ExitStack() as undo:
                undo.callback(self.engine.dispose)
                self._create()
                undo.pop_all()
        except (sa.exc.SQLAlchemyError, ImportError, OSError) as error:
            text = first_line(error)
            raise UserError(f"storage {url!r} cannot be opened ({text})", fix="try sqlite:///results.db") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.engine.dispose()

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold a study for this process; released by the system when the process dies, however it dies.

        Raises:
            UserError: another process is running the study.
        """
        message = f"study {name!r} is being run by another process"
        if self.engine.dialect.name == "sqlite":
            path = Path(f"{self.engine.url.database}.{hashlib.sha256(name.encode()).hexdigest()[:8]}.lock")
            try:
                with FileLock(path, timeout=0):
                    yield
            except Timeout:
                raise UserError(message, fix="wait for it, or give another --study") from None
            return
        key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")
        with self.engine.connect() as connection:
            if not connection.scalar(sa.select(sa.func.pg_try_advisory_lock(key))):
                raise UserError(message, fix="wait for it, or give another --study")
            try:
                yield
            finally:
                connection.scalar(sa.select(sa.func.pg_advisory_unlock(key)))

    def _create(self) -> None:
        """Make the tables that are missing, and refuse a database of another format.

        The version comes first, so that a process that dies in between leaves a database that the next one completes.
        """
        with self.engine.begin() as connection:
            if self.engine.dialect.name == "postgresql":
                # `if not exists` does not keep two sessions from making the same table at once.
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(FORMAT)))
            tables = sa.inspect(connection).get_table_names()
            if _VERSION.name not in tables and any(name in tables for name in _OF_FORMAT_1):
                self._refuse("an earlier version of moe-codesign")
            connection.execute(sa.schema.CreateTable(_VERSION, if_not_exists=True))
            with contextlib.suppress(sa.exc.IntegrityError), connection.begin_nested():
                connection.execute(_VERSION.insert().values(id=1, format=FORMAT))
            found = connection.scalar(sa.select(_VERSION.c.format))
            if found != FORMAT:
                self._refuse(f"a version of moe-codesign with storage format {found}")
            for table in METADATA.sorted_tables:
                connection.execute(sa.schema.CreateTable(table, if_not_exists=True))
                for index in table.indexes:
                    connection.execute(sa.schema.CreateIndex(index, if_not_exists=True))

    def _refuse(self, writer: str) -> None:
        raise UserError(
            f"storage {self.url!r} was written by {writer}; this one reads format {FORMAT}",
            fix="give another --storage, or move the old results away",
        )


def exists(url: str) -> bool:
    """False for an SQLite file that is not there; a server is taken to be."""
    try:
        file = _sqlite_file(url)
    except sa.exc.ArgumentError:
        return True
    return file is None or file.exists()


def _sqlite_file(url: str) -> Path | None:
    parsed = sa.make_url(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database or parsed.database == ":memory:":
        return None
    return Path(parsed.database)


def configure_sqlite(connection: Any, _: Any) -> None:
    """Write-ahead log: a commit survives ``kill -9`` and costs one append; readers do not block the writer."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA busy_timeout=30000")
    cursor.close()
