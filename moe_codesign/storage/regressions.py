"""Runs of regression tests in the database."""

import functools
import json
from dataclasses import dataclass

import sqlalchemy as sa
from pydantic import TypeAdapter, ValidationError

from moe_codesign.errors import UserError, first_line
from moe_codesign.storage.database import METADATA, Database

_REGRESSIONS = sa.Table(
    "moe_codesign_regressions",
    METADATA,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("suite", sa.String(200), nullable=False, index=True),
    sa.Column("created", sa.String(40), nullable=False),
    sa.Column("revision", sa.String(100), nullable=False),
    sa.Column("versions", sa.Text, nullable=False),
    sa.Column("regressions", sa.Integer, nullable=False),
    sa.Column("facts", sa.Text, nullable=False),
)
FactRow = dict[str, int | float | str]
"""The facts of one compiled kernel as files and databases hold them: texts and numbers by name, in one flat object."""


@dataclass(frozen=True)
class RegressionRun:
    """One regression test: ``facts`` by kernel, chip and tile; how many were worse than the baseline's."""

    suite: str
    created: str
    revision: str
    versions: dict[str, str]
    regressions: int
    facts: dict[tuple[str, str, str], FactRow]


class Regressions:
    """The regression tests of a database."""

    def __init__(self, database: Database) -> None:
        self._engine = database.engine

    def put(self, run: RegressionRun) -> None:
        """Store one regression test."""
        values = {
            "suite": run.suite,
            "created": run.created,
            "revision": run.revision,
            "versions": json.dumps(run.versions),
            "regressions": run.regressions,
            "facts": json.dumps([[*place, facts] for place, facts in run.facts.items()]),
        }
        with self._engine.begin() as connection:
            connection.execute(_REGRESSIONS.insert().values(**values))

    def of(self, suite: str) -> list[RegressionRun]:
        """Every stored regression test of a suite, the oldest first.

        Raises:
            UserError: a stored run cannot be read.
        """
        query = sa.select(_REGRESSIONS).where(_REGRESSIONS.c.suite == suite).order_by(_REGRESSIONS.c.number)
        with self._engine.connect() as connection:
            rows = connection.execute(query).all()
        return [
            RegressionRun(
                suite=row.suite,
                created=row.created,
                revision=row.revision,
                versions=_versions(row.versions, f"run {row.created} of suite {suite!r}"),
                regressions=row.regressions,
                facts=_facts(row.facts, f"run {row.created} of suite {suite!r}"),
            )
            for row in rows
        ]


@functools.cache
def _rows() -> TypeAdapter[list[tuple[str, str, str, FactRow]]]:
    return TypeAdapter(list[tuple[str, str, str, FactRow]])


def _versions(text: str, what: str) -> dict[str, str]:
    try:
        return TypeAdapter(dict[str, str]).validate_json(text)
    except ValidationError as error:
        raise UserError(f"{what} cannot be read ({first_line(error)})", fix="give another --storage") from None


def _facts(text: str, what: str) -> dict[tuple[str, str, str], FactRow]:
    try:
        rows = _rows().validate_json(text)
    except ValidationError as error:
        raise UserError(f"{what} cannot be read ({first_line(error)})", fix="give another --storage") from None
    return {(kernel, chip, tile): facts for kernel, chip, tile, facts in rows}
