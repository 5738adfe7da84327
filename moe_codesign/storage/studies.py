"""Studies and their trials in the database. A result is durable once :meth:`Studies.put` returns."""

import contextlib
import datetime
import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import sqlalchemy as sa
from pydantic import TypeAdapter, ValidationError

from moe_codesign.domain.enumeration import Enumeration
from moe_codesign.domain.pair import Pair
from moe_codesign.domain.polish import Polish
from moe_codesign.domain.trial import Outcome, Parameter, Trial
from moe_codesign.errors import UserError
from moe_codesign.storage.batches import drop_batches
from moe_codesign.storage.claims import Claim, still_holds
from moe_codesign.storage.database import METADATA, Database
from moe_codesign.tables import check_name

_STUDIES = sa.Table(
    "moe_codesign_studies",
    METADATA,
    sa.Column("name", sa.String(200), primary_key=True),
    sa.Column("identity", sa.Text, nullable=False),
    sa.Column("provenance", sa.Text, nullable=False),
    sa.Column("created", sa.String(40), nullable=False),
)
_TRIALS = sa.Table(
    "moe_codesign_trials",
    METADATA,
    sa.Column("study", sa.String(200), primary_key=True),
    sa.Column("chip", sa.String(100), primary_key=True),
    sa.Column("mode", sa.String(20), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("params", sa.Text, nullable=False),
    sa.Column("outcome", sa.Text, nullable=False),
)
_REFERENCES = sa.Table(
    "moe_codesign_references",
    METADATA,
    sa.Column("study", sa.String(200), primary_key=True),
    sa.Column("chip", sa.String(100), primary_key=True),
    sa.Column("pairs", sa.Text, nullable=False),
)
_TUNED_REFERENCES = sa.Table(
    "moe_codesign_tuned_references",
    METADATA,
    sa.Column("study", sa.String(200), primary_key=True),
    sa.Column("chip", sa.String(100), primary_key=True),
    sa.Column("pairs", sa.Text, nullable=False),
)
_ENUMERATIONS = sa.Table(
    "moe_codesign_enumerations",
    METADATA,
    sa.Column("study", sa.String(200), primary_key=True),
    sa.Column("chip", sa.String(100), primary_key=True),
    sa.Column("record", sa.Text, nullable=False),
)
_POLISHES = sa.Table(
    "moe_codesign_polishes",
    METADATA,
    sa.Column("study", sa.String(200), primary_key=True),
    sa.Column("chip", sa.String(100), primary_key=True),
    sa.Column("record", sa.Text, nullable=False),
)
_T = TypeVar("_T")


@dataclass(frozen=True)
class StoredStudy:
    """One study as it was begun.

    Args:
        name: of the study.
        identity: text of its space, as :meth:`moe_codesign.study.space.Space.stored` writes it.
        provenance: versions of what it was begun with.
        created: time, ISO 8601, UTC.
    """

    name: str
    identity: str
    provenance: dict[str, str]
    created: str


def check_study(name: str) -> str:
    """The name, if a study may have it. Raises UserError where it may not: a report's folder has the name too."""
    try:
        return check_name(name)
    except ValueError as error:
        raise UserError("study", value=name, fix=str(error)) from None


class Studies:
    """The studies of a database."""

    def __init__(self, database: Database) -> None:
        self.database, self._engine = database, database.engine

    def begin(self, name: str, identity: str, provenance: dict[str, str]) -> None:
        """Record a study, or resume it.

        Args:
            name: of the study.
            identity: what makes two studies the same; any text.
            provenance: versions of what it is run with; those of its first run are kept.

        Raises:
            UserError: a study of that name exists with another identity.
        """
        created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        row = {"name": name, "identity": identity, "provenance": json.dumps(provenance), "created": created}
        # Whoever comes first makes it: asking first whether it exists would leave room for another process in between.
        with contextlib.suppress(sa.exc.IntegrityError), self._engine.begin() as connection:
            connection.execute(_STUDIES.insert().values(**row))
        self.check(name, identity)

    def check(self, name: str, identity: str) -> None:
        """Raise UserError where a study of that name exists with another identity; nothing is stored."""
        stored = self.find(name)
        if stored is not None and stored.identity != identity:
            raise UserError(
                f"study {name!r} was begun with another space, another chip file or other --chips",
                fix="give another --study or --storage",
            )

    def put_identity(self, name: str, identity: str) -> None:
        """Replace the text of a study's space, which is the same space at other prices.

        Batches of an unfinished enumeration have values at the earlier prices, and go.
        """
        with self._engine.begin() as connection:
            drop_batches(connection, name)
            connection.execute(_STUDIES.update().where(_STUDIES.c.name == name).values(identity=identity))

    def get(self, name: str) -> StoredStudy:
        """The study of that name.

        Raises:
            UserError: no such study; names those that exist.
        """
        study = self.find(name)
        if study is None:
            names = ", ".join(study["name"] for study in self.every())
            where = f"studies in {self.database.name}: {names}" if names else f"{self.database.name} has no study"
            raise UserError("study", value=name, fix=where)
        return study

    def find(self, name: str) -> StoredStudy | None:
        """The study of that name, or None."""
        with self._engine.connect() as connection:
            row = connection.execute(sa.select(_STUDIES).where(_STUDIES.c.name == name)).one_or_none()
        if row is None:
            return None
        provenance = _load(_provenance(), row.provenance, f"provenance of study {name!r}")
        return StoredStudy(row.name, row.identity, provenance, row.created)

    def every(self) -> list[dict[str, Any]]:
        """Name, creation time and number of trials of each study, the oldest first."""
        count = sa.select(sa.func.count()).where(_TRIALS.c.study == _STUDIES.c.name)
        query = sa.select(_STUDIES.c.name, _STUDIES.c.created, count.scalar_subquery().label("trials"))
        with self._engine.connect() as connection:
            return [dict(row._mapping) for row in connection.execute(query.order_by(_STUDIES.c.created))]

    def put(self, study: str, trial: Trial, *, claim: Claim | None = None) -> bool:
        """Store one trial, instead of one with its number.

        Args:
            study: its name.
            trial: what came of it.
            claim: by which its process has it; a trial that was given to another process meanwhile is not stored.

        Returns:
            Whether it was stored.
        """
        row = {"study": study, **_row(trial)}
        with self._engine.begin() as connection:
            if claim is not None and not still_holds(connection, claim):
                return False
            key = {name: row[name] for name in ("study", "chip", "mode", "number")}
            _replace(connection, _TRIALS, key, [row])
        return True

    def outcome(self, claim: Claim) -> Outcome | None:
        """What came of a claimed trial whose process was killed after it had stored it; None where it had not.

        Raises:
            UserError: the stored trial cannot be read.
        """
        of_claim = _where(
            _TRIALS, {"study": claim.study, "chip": claim.chip, "mode": claim.mode, "number": claim.number}
        )
        with self._engine.connect() as connection:
            text = connection.scalar(sa.select(_TRIALS.c.outcome).where(*of_claim))
        what = f"study {claim.study!r}: trial {claim.number} of {claim.chip}, {claim.mode}"
        return None if text is None else _load(_outcome(), text, what)

    def trials(self, study: str) -> list[Trial]:
        """Every stored trial of a study, in the order of chip, mode and number.

        Raises:
            UserError: a stored trial cannot be read.
        """
        query = sa.select(_TRIALS).where(_TRIALS.c.study == study)
        with self._engine.connect() as connection:
            rows = connection.execute(query.order_by(_TRIALS.c.chip, _TRIALS.c.mode, _TRIALS.c.number)).all()
        trials = []
        for row in rows:
            what = f"study {study!r}: trial {row.number} of {row.chip}, {row.mode}"
            params, outcome = _load(_params(), row.params, what), _load(_outcome(), row.outcome, what)
            trials.append(Trial(chip=row.chip, mode=row.mode, number=row.number, params=params, outcome=outcome))
        return trials

    def put_reference(self, study: str, chip: str, pairs: tuple[Pair, ...], *, tuned: bool = False) -> None:
        """Store the pairs of the reference model on a chip, one for each workload that it could be timed under.

        Args:
            study: its name.
            chip: where.
            pairs: with the default tiles.
            tuned: they are with the best tiles of the space instead; kept beside the others.
        """
        table = _TUNED_REFERENCES if tuned else _REFERENCES
        with self._engine.begin() as connection:
            key = {"study": study, "chip": chip}
            _replace(connection, table, key, [{**key, "pairs": _dump(_pairs(), pairs)}])

    def put_enumeration(self, study: str, enumeration: Enumeration, trials: Sequence[Trial]) -> None:
        """Store what came of every point of a chip's space, and those trials of it that are kept; all or nothing."""
        key = {"study": study, "chip": enumeration.chip}
        rows = [{"study": study, **_row(trial)} for trial in trials]
        with self._engine.begin() as connection:
            _replace(connection, _ENUMERATIONS, key, [{**key, "record": _dump(_enumeration(), enumeration)}])
            # Trials that were sampled before stay: each was asked for.
            _replace(connection, _TRIALS, {**key, "mode": "exact"}, rows)
            drop_batches(connection, study, enumeration.chip)

    def put_polish(self, study: str, done: Polish, trials: Sequence[Trial]) -> None:
        """Store what came of the neighbours of a chip's frontier, instead of an earlier polish; all or nothing."""
        key = {"study": study, "chip": done.chip}
        rows = [{"study": study, **_row(trial)} for trial in trials]
        with self._engine.begin() as connection:
            _replace(connection, _POLISHES, key, [{**key, "record": _dump(_polish(), done)}])
            _replace(connection, _TRIALS, {**key, "mode": "polish"}, rows)

    def polishes(self, study: str) -> dict[str, Polish]:
        """By chip, what came of the neighbours of its frontier, where they were timed.

        Raises:
            UserError: a stored record cannot be read.
        """
        with self._engine.connect() as connection:
            if not sa.inspect(connection).has_table(_POLISHES.name):  # an older database that may only be read
                return {}
            rows = connection.execute(sa.select(_POLISHES).where(_POLISHES.c.study == study)).all()
        return {row.chip: _load(_polish(), row.record, f"study {study!r}: polish on {row.chip}") for row in rows}

    def enumerations(self, study: str) -> dict[str, Enumeration]:
        """By chip, what came of enumerating its space; a chip that was sampled, or not searched yet, is not in it.

        Raises:
            UserError: a stored record cannot be read.
        """
        with self._engine.connect() as connection:
            if not sa.inspect(connection).has_table(_ENUMERATIONS.name):  # an older database that may only be read
                return {}
            rows = connection.execute(sa.select(_ENUMERATIONS).where(_ENUMERATIONS.c.study == study)).all()
        return {
            row.chip: _load(_enumeration(), row.record, f"study {study!r}: enumeration on {row.chip}") for row in rows
        }

    def references(self, study: str, *, tuned: bool = False) -> dict[str, tuple[Pair, ...]]:
        """The reference model's pairs by chip; a chip that is not in it has not been asked yet.

        Args:
            study: its name.
            tuned: with the best tiles of the space, instead of the default ones.

        Raises:
            UserError: a stored pair cannot be read.
        """
        table = _TUNED_REFERENCES if tuned else _REFERENCES
        with self._engine.connect() as connection:
            rows = connection.execute(sa.select(table).where(table.c.study == study).order_by(table.c.chip)).all()
        return {row.chip: _load(_pairs(), row.pairs, f"study {study!r}: reference on {row.chip}") for row in rows}


def _where(table: sa.Table, key: Mapping[str, Any]) -> list[sa.ColumnElement[bool]]:
    """The rows whose columns are these."""
    return [table.c[name] == value for name, value in key.items()]


def _replace(
    connection: sa.Connection, table: sa.Table, key: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> None:
    """Put rows in the place of those with that key."""
    connection.execute(table.delete().where(*_where(table, key)))
    if rows:
        connection.execute(table.insert(), list(rows))


def _row(trial: Trial) -> dict[str, Any]:
    return {
        "chip": trial.chip,
        "mode": trial.mode,
        "number": trial.number,
        "params": _dump(_params(), trial.params),
        "outcome": _dump(_outcome(), trial.outcome),
    }


@functools.cache
def _polish() -> TypeAdapter[Polish]:
    return TypeAdapter(Polish)


@functools.cache
def _params() -> TypeAdapter[dict[str, Parameter]]:
    return TypeAdapter(dict[str, Parameter])


@functools.cache
def _outcome() -> TypeAdapter[Outcome]:
    return TypeAdapter(Outcome)


@functools.cache
def _enumeration() -> TypeAdapter[Enumeration]:
    return TypeAdapter(Enumeration)


@functools.cache
def _pairs() -> TypeAdapter[tuple[Pair, ...]]:
    return TypeAdapter(tuple[Pair, ...])


@functools.cache
def _provenance() -> TypeAdapter[dict[str, str]]:
    return TypeAdapter(dict[str, str])


def _dump(adapter: TypeAdapter[_T], value: _T) -> str:
    return adapter.dump_json(value).decode()


def _load(adapter: TypeAdapter[_T], text: str, what: str) -> _T:
    try:
        return adapter.validate_json(text, strict=True)
    except (ValidationError, UserError) as error:
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        else:
            reason = str(error)
        raise UserError(f"{what} cannot be read ({reason})", fix="give another --study or --storage") from None
