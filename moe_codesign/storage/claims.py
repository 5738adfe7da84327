"""Who is at work on what: the claims of the processes that share a study.

A unit of work (a trial, or a batch of points of an enumerated space) is claimed before it is begun and belongs to one
process at a time. A process is taken to be gone when the lock that it holds as long as it lives is free, which a killed
one leaves at once, or when it has given no sign of life for a minute, as a machine that has vanished or sleeps. Its
claims are then given to others; should it come back, its results are not stored.

On SQLite one process at a time has a study, and whatever another one has left is given to it.
"""

import contextlib
import json
import os
import secrets
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import sqlalchemy as sa

from moe_codesign.errors import MachineError
from moe_codesign.storage.database import METADATA, Database
from moe_codesign.storage.locks import check_connection, close_when_idle, lasting_connection, lock_key, unlock

MOST_KILLS = 3
"""Processes that may be killed over one unit of work: after the third it is given up. One that kills its process by
itself, by the memory that it takes, would else end every process of the study."""
HEARTBEAT_S = 10.0
"""How often a process says that it lives."""
GONE_AFTER_S = 60.0
"""Without a sign of life for so long a process is gone."""
_CLAIMS = sa.Table(
    "moe_codesign_claims",
    METADATA,
    sa.Column("study", sa.String(200), primary_key=True),
    sa.Column("chip", sa.String(100), primary_key=True),
    sa.Column("mode", sa.String(20), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("worker", sa.String(100), nullable=False),
    sa.Column("seen", sa.Float, nullable=False),
    sa.Column("kills", sa.Integer, nullable=False),
    sa.Column("params", sa.Text, nullable=False),
)
_NOBODY = ""
"""The worker of a claim that was handed back."""


@dataclass(frozen=True)
class Claim:
    """A unit of work that is not finished.

    Args:
        study, chip, mode, number: which.
        worker: the process that has it; empty where it was handed back.
        seen: when that process last gave a sign of life, by the server's clock, in seconds.
        kills: how many processes were killed over it.
        params: what was proposed for it.
    """

    study: str
    chip: str
    mode: str
    number: int
    worker: str
    seen: float
    kills: int
    params: dict[str, Any]

    def drop(self, connection: sa.Connection) -> None:
        """Remove it, as long as its process has it."""
        connection.execute(_CLAIMS.delete().where(self.own_row()))

    def own_row(self) -> sa.ColumnElement[bool]:
        """Its row, as long as its process has it."""
        return sa.and_(
            _CLAIMS.c.study == self.study,
            _CLAIMS.c.chip == self.chip,
            _CLAIMS.c.mode == self.mode,
            _CLAIMS.c.number == self.number,
            _CLAIMS.c.worker == self.worker,
        )


def still_holds(connection: sa.Connection, claim: Claim) -> bool:
    """Whether a claim is still its process's, which it then stays until the transaction of the connection ends."""
    return connection.execute(_CLAIMS.update().where(claim.own_row()).values(kills=claim.kills)).rowcount == 1


class Worker:
    """This process's part in a study that others may work on, too. Made by :meth:`join`.

    Attributes:
        name: of the process, as no other has it.
    """

    def __init__(self, database: Database, study: str, lasting: sa.Connection) -> None:
        self.database, self.study = database, study
        self.name = f"{socket.gethostname()[:60]}:{os.getpid()}:{secrets.token_hex(6)}"
        self._lasting = lasting
        self._left = threading.Event()
        self._lock = threading.Lock()

    @classmethod
    @contextlib.contextmanager
    def join(cls, database: Database, study: str) -> Iterator[Self]:
        """Take part in a study; on SQLite alone, on a server beside others.

        Raises:
            UserError: another process has the study, in an SQLite file.
        """
        alone = database.lock(study) if database.file is not None else contextlib.nullcontext()
        with alone, lasting_connection(database.engine) as connection:
            worker = cls(database, study, connection)
            if worker.is_alone:
                yield worker
                return
            connection.execute(sa.select(sa.func.pg_advisory_lock(lock_key(worker.name))))
            beating = threading.Thread(target=worker._beat, name="heartbeat", daemon=True)
            beating.start()
            try:
                yield worker
            finally:
                worker._left.set()
                beating.join()
                unlock(connection, worker.name)

    @property
    def is_alone(self) -> bool:
        """Whether no other process can have the study at the same time."""
        return self.database.file is not None

    def held(self) -> None:
        """Raise MachineError where the server has closed the connection by which others know that this one lives."""
        if not self.is_alone:
            with self._lock:
                check_connection(self._lasting, self.study)

    @contextlib.contextmanager
    def turn(self, what: str, limit_s: float | None = None) -> Iterator["Turn"]:
        """Do something that one process of the study does at a time; the others wait for their turn.

        Args:
            what: each has its own queue.
            limit_s: a process that does nothing with its turn for so long, as one that sleeps, loses it.
        """
        with lasting_connection(self.database.engine) as connection:
            if self.is_alone:
                yield Turn(self, connection)
                return
            name = f"{self.study}/{what}"
            connection.execute(sa.select(sa.func.pg_advisory_lock(lock_key(name))))
            if limit_s is not None:
                close_when_idle(connection, limit_s)
            try:
                yield Turn(self, connection)
            finally:
                unlock(connection, name)

    def release(self, claim: Claim) -> None:
        """Hand work back: it was interrupted, and nobody was killed over it."""
        with self.database.engine.begin() as connection:
            connection.execute(_CLAIMS.update().where(claim.own_row()).values(worker=_NOBODY))

    def finish(self, claim: Claim) -> None:
        """Work is done, and its result stored."""
        with self.database.engine.begin() as connection:
            claim.drop(connection)

    def _beat(self) -> None:
        mine = (_CLAIMS.c.study == self.study, _CLAIMS.c.worker == self.name)
        while not self._left.wait(HEARTBEAT_S):
            # A beat that is missed costs nothing; where all are, held() says so or the claims go to others.
            with contextlib.suppress(sa.exc.SQLAlchemyError, MachineError), self.database.engine.begin() as connection:
                connection.execute(_CLAIMS.update().where(*mine).values(seen=_clock(connection)))


class Turn:
    """What a process may do with claims while the others wait.

    Args:
        worker: the process.
        connection: the one that holds the turn; should it be lost, so is the turn, and nothing can be claimed by it.
    """

    def __init__(self, worker: Worker, connection: sa.Connection) -> None:
        self.worker, self._connection = worker, connection

    def claims(self, chip: str, mode: str) -> dict[int, Claim]:
        """The unfinished work of one mode of a chip, by number."""
        of_mode = (_CLAIMS.c.study == self.worker.study, _CLAIMS.c.chip == chip, _CLAIMS.c.mode == mode)
        rows = self._connection.execute(sa.select(_CLAIMS).where(*of_mode)).all()
        return {
            row.number: Claim(
                row.study, row.chip, row.mode, row.number, row.worker, row.seen, row.kills, json.loads(row.params)
            )
            for row in rows
        }

    def claim(self, chip: str, mode: str, number: int, params: Mapping[str, Any]) -> Claim:
        """Claim what nobody had."""
        claim = Claim(self.worker.study, chip, mode, number, self.worker.name, 0.0, 0, dict(params))
        values = vars(claim) | {"params": json.dumps(claim.params), "seen": _clock(self._connection)}
        self._connection.execute(_CLAIMS.insert().values(**values))
        return claim

    def is_free(self, claim: Claim) -> bool:
        """Whether work was handed back, or its process is gone."""
        if claim.worker == self.worker.name:
            return False
        if self.worker.is_alone or claim.worker == _NOBODY:
            return True
        key = lock_key(claim.worker)
        if self._connection.scalar(sa.select(sa.func.pg_try_advisory_lock_shared(key))):
            self._connection.execute(sa.select(sa.func.pg_advisory_unlock_shared(key)))
            return True
        now = self._connection.scalar(sa.select(_clock(self._connection)))
        return float(now or 0.0) - claim.seen > GONE_AFTER_S

    def take_over(self, claim: Claim) -> Claim:
        """Claim what is free, and count the kill where its process is gone."""
        killed = claim.worker != _NOBODY
        taken = replace(claim, worker=self.worker.name, kills=claim.kills + killed)
        values = {"worker": taken.worker, "seen": _clock(self._connection), "kills": taken.kills}
        self._connection.execute(_CLAIMS.update().where(claim.own_row()).values(**values))
        return taken

    def forget(self, claim: Claim) -> None:
        """Remove a claim whose work was finished before its process could remove it."""
        claim.drop(self._connection)


def _clock(connection: sa.Connection) -> sa.ColumnElement[Any]:
    """The server's clock, in seconds; an SQLite file is of one process at a time, which needs none."""
    if connection.dialect.name != "postgresql":
        return sa.literal(0.0)
    return sa.extract("epoch", sa.func.clock_timestamp())
