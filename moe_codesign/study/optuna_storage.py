"""Optuna's tables, in the database that holds ours."""

import contextlib
from collections.abc import Iterator

import optuna
import sqlalchemy as sa

from moe_codesign.errors import MachineError, first_line
from moe_codesign.storage.database import Database, configure_sqlite, engine_options, say_in_one_line


@contextlib.contextmanager
def optuna_storage(database: Database) -> Iterator[optuna.storages.RDBStorage]:
    """Optuna's storage in a database, with the same settings and one-line errors; closed at the end.

    Raises:
        MachineError: its tables cannot be made, or another version of Optuna made them.
    """
    try:
        with database.making_tables():
            storage = optuna.storages.RDBStorage(database.url, engine_kwargs=engine_options(database.url))
    except (sa.exc.SQLAlchemyError, RuntimeError) as error:  # RuntimeError: tables of another version of Optuna
        raise MachineError(f"storage {database.name!r}: {first_line(error)}") from None
    if storage.engine.dialect.name == "sqlite":
        # The engine is open by now: set what its pool will hand out, too.
        sa.event.listen(storage.engine, "connect", configure_sqlite)
        storage.engine.dispose()
    say_in_one_line(storage.engine, database.name)
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()
