"""Parts of a space that is being enumerated, by whichever processes; kept until all of it was timed."""

from dataclasses import dataclass

import sqlalchemy as sa
from pydantic import ConfigDict, TypeAdapter, ValidationError

from moe_codesign.domain.failure import FailureKind
from moe_codesign.errors import UserError
from moe_codesign.storage.claims import Claim, still_holds
from moe_codesign.storage.database import METADATA, Database

_BATCHES = sa.Table(
    "moe_codesign_batches",
    METADATA,
    sa.Column("study", sa.String(200), primary_key=True),
    sa.Column("chip", sa.String(100), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("record", sa.Text, nullable=False),
)


@dataclass(frozen=True)
class Batch:
    """What came of some points of a space, one after another.

    Args:
        numbers: of those that have a time under every workload, counted through the space.
        values: of the objectives, for each of them.
        refused: how many of the others were ruled out, by kind.
    """

    numbers: list[int]
    values: list[list[float]]
    refused: dict[FailureKind, int]

    __pydantic_config__ = ConfigDict(extra="forbid", ser_json_inf_nan="constants")


_BATCH = TypeAdapter(Batch)


class Batches:
    """The timed batches of a study on one chip, each by its first point's number."""

    def __init__(self, database: Database, study: str, chip: str) -> None:
        self._engine, self._study, self._chip = database.engine, study, chip

    def put(self, batch: Batch, claim: Claim) -> bool:
        """Store what came of a claimed batch, and remove the claim; False where it is another process's by now."""
        record = _BATCH.dump_json(batch).decode()
        row = {"study": self._study, "chip": self._chip, "number": claim.number, "record": record}
        with self._engine.begin() as connection:
            if not still_holds(connection, claim):
                return False
            connection.execute(_BATCHES.insert().values(**row))
            claim.drop(connection)
        return True

    def done(self) -> set[int]:
        """The first points of the batches that were timed."""
        with self._engine.connect() as connection:
            return set(connection.scalars(sa.select(_BATCHES.c.number).where(*_of(self._study, self._chip))))

    def every(self) -> list[Batch]:
        """All of them, in the order of their points.

        Raises:
            UserError: a stored batch cannot be read.
        """
        query = sa.select(_BATCHES).where(*_of(self._study, self._chip)).order_by(_BATCHES.c.number)
        with self._engine.connect() as connection:
            return [self._read(row.number, row.record) for row in connection.execute(query)]

    def _read(self, number: int, record: str) -> Batch:
        try:
            return _BATCH.validate_json(record, strict=True)
        except ValidationError as error:
            raise UserError(
                f"study {self._study!r}: the batch from point {number} on {self._chip} cannot be read "
                f"({error.errors()[0]['msg']})",
                fix="give another --study or --storage",
            ) from None


def drop_batches(connection: sa.Connection, study: str, chip: str | None = None) -> None:
    """Remove the batches of a chip, whose enumeration is stored by the same transaction; or of all chips."""
    of_chips = () if chip is None else (_BATCHES.c.chip == chip,)
    connection.execute(_BATCHES.delete().where(_BATCHES.c.study == study, *of_chips))


def _of(study: str, chip: str) -> tuple[sa.ColumnElement[bool], ...]:
    return _BATCHES.c.study == study, _BATCHES.c.chip == chip
