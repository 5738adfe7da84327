"""The SQL database that results are kept in, beside Optuna's studies: engine, format version, locks."""

import contextlib
import logging
import os
import re
import urllib.parse
from pathlib import Path
from typing import Any, Self

import sqlalchemy as sa

from moe_codesign.errors import MachineError, UserError, first_line, printable
from moe_codesign.extras import require
from moe_codesign.storage.locks import Held, file_lock, server_lock

METADATA = sa.MetaData()
"""Every table of ours; the modules beside this one add theirs."""
FORMAT = 5
"""Number of the tables' layout and of what their JSON columns hold. A change to either counts it up. Format 3 has notes
on pairs, their quality by other laws, workloads without a seed, and the table of enumerations; format 4 has the table
of polishes and their trials; format 5 has the tables of claims and of batches. Formats 2 to 4 are read without what
came later."""
_READ_TOO = (2, 3, 4)
"""Earlier formats that are read as they are, and become this one where the database is written to."""
_VERSION = sa.Table(
    "moe_codesign_version",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("format", sa.Integer, nullable=False),
)
_CONNECT_S = 15
"""How long a server may take to answer before it is taken to be away."""
_MAKING = ""
"""The lock that is held while tables are made; no study has such a name."""
_WAIT_S = 60.0
_OF_FORMAT_1 = ("moe_codesign_studies", "moe_codesign_trials", "moe_codesign_regressions")
"""Tables of the first format, which had no version."""


class Database:
    """The database behind a URL (``sqlite:///file.db``, ``postgresql+psycopg://...``); ``with`` closes its connections.

    Whatever the server or the file system refuses later (a full disk, a lost connection, damage) is a MachineError.

    Args:
        url: of SQLAlchemy. An SQLite file that does not exist is made; one that may not be written to is read alone.
        must_exist: an SQLite file that is not there is an error: there is nothing to read in it.

    Attributes:
        url: as it was given, with the driver that is used here, for a library that opens the database too.
        file: of SQLite; None for a server, whose studies many processes may work on.
        name: the URL for people to read, without a password.

    Raises:
        UserError: it cannot be opened, does not exist, or another version of moe-codesign wrote it.
    """

    def __init__(self, url: str, *, must_exist: bool = False) -> None:
        self.url, self.name = _with_driver(url), shown(url)
        if must_exist and not exists(url):
            raise UserError("storage", value=self.name, fix="there is no such file; run `moe-codesign search` first")
        try:
            self.file = _sqlite_file(url)
            read_only = self.file is not None and _is_read_only(self.file)
            if self.file is not None and not read_only:
                self.file.parent.mkdir(parents=True, exist_ok=True)
            opened = _read_only_url(self.file) if read_only and self.file else self.url
            self.engine = sa.create_engine(opened, **engine_options(self.url))
            if self.engine.dialect.name not in ("sqlite", "postgresql"):
                raise ValueError(f"{self.engine.dialect.name} has no locks that are known here")
            if self.engine.dialect.name == "sqlite" and self.file is None:
                raise ValueError("a database in memory is gone with the command")
            if self.file is not None and not read_only:
                sa.event.listen(self.engine, "connect", configure_sqlite)
            with contextlib.ExitStack() as undo:
                undo.callback(self.engine.dispose)
                if not read_only:
                    with self.lock(_MAKING, wait_s=_WAIT_S):
                        self._create()
                else:
                    self._check_format()
                undo.pop_all()
        except (sa.exc.SQLAlchemyError, ImportError, OSError, ValueError) as error:
            text = _without_password(first_line(error), url)
            away = isinstance(error, sa.exc.OperationalError) and self.file is None
            fix = "see that the server runs and lets this machine in" if away else "try sqlite:///results.db"
            raise UserError(f"storage {self.name!r} cannot be opened ({text})", fix=fix) from None
        say_in_one_line(self.engine, self.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.engine.dispose()

    def lock(self, name: str, *, wait_s: float = 0.0) -> contextlib.AbstractContextManager[Held]:
        """Hold a name for this process; released by the system when the process dies, however it dies.

        Args:
            name: of a study, which the error names.
            wait_s: how long to wait for another process that holds it.

        Returns:
            A context that gives a function, which raises MachineError where the lock has been lost since, with the
            server's connection.

        Raises:
            UserError: another process holds it.
        """
        if self.file is not None:
            # By the file that the name leads to: a link to it is the same database.
            return file_lock(self.file.resolve(), name, wait_s)
        return server_lock(self.engine, name, wait_s)

    def making_tables(self) -> contextlib.AbstractContextManager[Held]:
        """Hold off other processes while a library makes its tables here: two at once get in each other's way."""
        return self.lock(_MAKING, wait_s=_WAIT_S)

    def _create(self) -> None:
        """Make the tables that are missing, and refuse a database of another format.

        The version comes first, so that a process that dies in between leaves a database that the next one completes.
        """
        with self.engine.begin() as connection:
            tables = sa.inspect(connection).get_table_names()
            if _VERSION.name not in tables and any(name in tables for name in _OF_FORMAT_1):
                self._refuse("an earlier version of moe-codesign")
            connection.execute(sa.schema.CreateTable(_VERSION, if_not_exists=True))
            with contextlib.suppress(sa.exc.IntegrityError), connection.begin_nested():
                connection.execute(_VERSION.insert().values(id=1, format=FORMAT))
            found = connection.scalar(sa.select(_VERSION.c.format))
            if found in _READ_TOO:
                connection.execute(_VERSION.update().values(format=FORMAT))
            elif found != FORMAT:
                self._refuse(f"a version of moe-codesign with storage format {found}")
            for table in METADATA.sorted_tables:
                connection.execute(sa.schema.CreateTable(table, if_not_exists=True))
                for index in table.indexes:
                    connection.execute(sa.schema.CreateIndex(index, if_not_exists=True))

    def _check_format(self) -> None:
        with self.engine.connect() as connection:
            if _VERSION.name not in sa.inspect(connection).get_table_names():
                self._refuse("another program, or an earlier version of moe-codesign")
            if (found := connection.scalar(sa.select(_VERSION.c.format))) not in (FORMAT, *_READ_TOO):
                self._refuse(f"a version of moe-codesign with storage format {found}")

    def _refuse(self, writer: str) -> None:
        raise UserError(
            f"storage {self.name!r} was written by {writer}; this one reads format {FORMAT}",
            fix="give another --storage, or move the old results away",
        )


def engine_options(url: str) -> dict[str, Any]:
    """Of SQLAlchemy: a connection that the server has closed while it was idle is opened anew; and a server that is
    away, or a machine that has vanished with its connections open, is noticed within a minute."""
    options: dict[str, Any] = {"pool_pre_ping": True}
    if _is_postgresql(url):
        alive = "-c tcp_keepalives_idle=20 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3"
        options["connect_args"] = {"connect_timeout": _CONNECT_S, "options": alive}
    return options


def _with_driver(url: str) -> str:
    """The URL with the driver that the extra installs, where it names none.

    Raises:
        UserError: the driver is not installed.
    """
    if not _is_postgresql(url):
        return url
    scheme, rest = url.split("://", 1)
    if scheme in ("postgresql", "postgres", "postgresql+psycopg"):
        require("psycopg", "storage on PostgreSQL")
        return f"postgresql+psycopg://{rest}"
    return url


def _is_postgresql(url: str) -> bool:
    return re.match(r"postgres(ql)?(\+\w+)?://", url) is not None


def exists(url: str) -> bool:
    """False for an SQLite file that is not there; a server is taken to be."""
    try:
        file = _sqlite_file(url)
    except (sa.exc.ArgumentError, ValueError):
        return True
    return file is None or file.exists()


def _sqlite_file(url: str) -> Path | None:
    parsed = sa.make_url(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database or parsed.database == ":memory:":
        return None
    return Path(parsed.database)


def shown(url: str) -> str:
    """A URL for people to read: without the password, and without what would move a terminal's cursor."""
    return printable(_KEY.sub(r"\1***", _PASSWORD.sub(r"\1:***@", url)))


_PASSWORD = re.compile(r"^([^:/?]+://[^:@/?]*):(.*)@")
_KEY = re.compile(r"([?&](?:password|sslpassword|sslkey|passfile)=)([^&]*)", re.IGNORECASE)


def _without_password(text: str, url: str) -> str:
    for pattern in (_PASSWORD, _KEY):
        for found in pattern.finditer(url):
            for secret in {found[2], urllib.parse.unquote(found[2])} - {""}:
                text = text.replace(secret, "***")
    return text


def _is_read_only(file: Path) -> bool:
    return file.is_file() and not (os.access(file, os.W_OK) and os.access(file.resolve().parent, os.W_OK))


def _read_only_url(file: Path) -> str:
    # Without a log of what is not in the file yet, nothing can change in it that may not be written to.
    log = file.with_name(file.name + "-wal")
    immutable = "" if log.exists() and log.stat().st_size else "&immutable=1"
    return f"sqlite:///file:{urllib.parse.quote(str(file.absolute()))}?mode=ro{immutable}&uri=true"


def say_in_one_line(engine: sa.Engine, name: str) -> None:
    """Make what the machine refuses (a full disk, a lost connection, a damaged file) a MachineError in one line."""

    def translate(context: sa.engine.ExceptionContext) -> None:
        error = context.sqlalchemy_exception
        # The others are of the statement: a duplicate key, a fault of ours.
        ours = (sa.exc.IntegrityError, sa.exc.ProgrammingError, sa.exc.DataError, sa.exc.NotSupportedError)
        if isinstance(error, sa.exc.DBAPIError) and not isinstance(error, ours) and not context.is_pre_ping:
            said = first_line(context.original_exception)
            raise MachineError(f"storage {name!r}: {said}; what was stored is safe, and the same command goes on")

    sa.event.listen(engine, "handle_error", translate)
    # Ctrl-C while a connection goes back to its pool is logged with a traceback, and then raised as everywhere else.
    pool = type(engine.pool)
    logging.getLogger(f"{pool.__module__}.{pool.__qualname__}").addFilter(_is_no_interrupt)


def _is_no_interrupt(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], KeyboardInterrupt))


def configure_sqlite(connection: Any, _: Any) -> None:
    """Write-ahead log: a commit survives ``kill -9`` and costs one append; readers do not block the writer."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA busy_timeout=30000")
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.close()
