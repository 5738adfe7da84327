"""Runs of regression tests in the database."""

import json
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

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


@dataclass(frozen=True)
class RegressionRun:
    """One regression test: ``facts`` by kernel, chip and tile; how many were worse than the baseline's."""

    suite: str
    created: str
    revision: str
    versions: dict[str, str]
    regressions: int
    facts: dict[tuple[str, str, str], dict[str, Any]]


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
        """Every stored regression test of a suite, the oldest first."""
        query = sa.select(_REGRESSIONS).where(_REGRESSIONS.c.suite == suite).order_by(_REGRESSIONS.c.number)
        with self._engine.connect() as connection:
            rows = connection.execute(query).all()
        return [
            RegressionRun(
                suite=row.suite,
                created=row.created,
                revision=row.revision,
                versions=json.loads(row.versions),
                regressions=row.regressions,
                facts={(kernel, chip, tile): facts for kernel, chip, tile, facts in json.loads(row.facts)},
            )
            for row in rows
        ]
