"""Results in a SQL database, beside Optuna's studies. A result is durable once :meth:`Store.put` returns."""

import contextlib
import datetime
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from filelock import FileLock, Timeout

from moe_codesign.domain.pair import Pair
from moe_codesign.errors import UserError, first_line

_METADATA = sa.MetaData()
_STUDIES = sa.Table(
    "moe_codesign_studies",
    _METADATA,
    sa.Column("name", sa.String(200), primary_key=True),
    sa.Column("space", sa.Text, nullable=False),
    sa.Column("space_hash", sa.String(64), nullable=False),
    sa.Column("provenance", sa.Text, nullable=False),
    sa.Column("created", sa.String(40), nullable=False),
)
_TRIALS = sa.Table(
    "moe_codesign_trials",
    _METADATA,
    sa.Column("study", sa.String(200), primary_key=True),
    sa.Column("chip", sa.String(100), primary_key=True),
    sa.Column("mode", sa.String(20), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("feasible", sa.Boolean, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("params", sa.Text, nullable=False),
    sa.Column("pairs", sa.Text, nullable=False),
)
_REGRESSIONS = sa.Table(
    "moe_codesign_regressions",
    _METADATA,
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


class TrialRow:
    """One finished trial: its pairs (one a workload), or why there are none."""

    def __init__(
        self,
        *,
        chip: str,
        mode: str,
        number: int,
        pairs: Sequence[Pair],
        reason: str = "",
        params: dict[str, Any] | None = None,
    ) -> None:
        self.chip, self.mode, self.number = chip, mode, number
        self.pairs, self.reason, self.params = tuple(pairs), reason, params or {}

    @property
    def feasible(self) -> bool:
        return not self.reason


class Store:
    """The database behind a URL (``sqlite:///file.db``, ``postgresql+psycopg://...``)."""

    def __init__(self, url: str) -> None:
        self.url = url
        try:
            parsed = sa.make_url(url)
            if parsed.drivername.startswith("sqlite") and parsed.database:
                Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
            self.engine = sa.create_engine(url)
            if self.engine.dialect.name == "sqlite":
                sa.event.listen(self.engine, "connect", configure_sqlite)
            _METADATA.create_all(self.engine)
        except (sa.exc.SQLAlchemyError, ImportError, OSError) as error:
            text = first_line(error)
            raise UserError(f"storage {url!r} cannot be opened ({text})", fix="try sqlite:///results.db") from None

    @contextlib.contextmanager
    def lock(self, study: str) -> Iterator[None]:
        """Hold the study for this process; released by the system when the process dies, however it dies.

        Raises:
            UserError: another process is running the study.
        """
        message = f"study {study!r} is being run by another process"
        if self.engine.dialect.name == "sqlite":
            path = Path(f"{self.engine.url.database}.{hashlib.sha256(study.encode()).hexdigest()[:8]}.lock")
            try:
                with FileLock(path, timeout=0):
                    yield
            except Timeout:
                raise UserError(message, fix="wait for it, or give another --study") from None
            return
        key = int.from_bytes(hashlib.sha256(study.encode()).digest()[:7], "big")
        with self.engine.connect() as connection:
            if not connection.scalar(sa.select(sa.func.pg_try_advisory_lock(key))):
                raise UserError(message, fix="wait for it, or give another --study")
            try:
                yield
            finally:
                connection.scalar(sa.select(sa.func.pg_advisory_unlock(key)))

    def open_study(self, name: str, space: str, provenance: dict[str, str]) -> None:
        """Record a study, or resume it.

        Raises:
            UserError: a study of that name exists with another space.
        """
        digest = hashlib.sha256(space.encode()).hexdigest()
        with self.engine.begin() as connection:
            known = connection.execute(sa.select(_STUDIES).where(_STUDIES.c.name == name)).one_or_none()
            if known is None:
                created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
                row = {"name": name, "space": space, "space_hash": digest, "created": created}
                connection.execute(_STUDIES.insert().values(**row, provenance=json.dumps(provenance)))
            elif known.space_hash != digest:
                raise UserError(
                    f"study {name!r} was begun with another space or other --chips",
                    fix="give another --study or --storage",
                )

    def put(self, study: str, row: TrialRow) -> None:
        """Store one trial; a trial evaluated again after a kill replaces what it left."""
        key = {"study": study, "chip": row.chip, "mode": row.mode, "number": row.number}
        values = {
            "feasible": row.feasible,
            "reason": row.reason,
            "params": json.dumps(row.params),
            "pairs": json.dumps([pair.to_dict() for pair in row.pairs]),
        }
        with self.engine.begin() as connection:
            connection.execute(_TRIALS.delete().where(*(_TRIALS.c[k] == v for k, v in key.items())))
            connection.execute(_TRIALS.insert().values(**key, **values))

    def trials(self, study: str) -> list[TrialRow]:
        """Every stored trial of a study, in the order of chip, mode and number."""
        query = sa.select(_TRIALS).where(_TRIALS.c.study == study)
        with self.engine.connect() as connection:
            rows = connection.execute(query.order_by(_TRIALS.c.chip, _TRIALS.c.mode, _TRIALS.c.number)).all()
        return [
            TrialRow(
                chip=row.chip,
                mode=row.mode,
                number=row.number,
                pairs=[Pair.from_dict(p) for p in json.loads(row.pairs)],
                reason=row.reason,
                params=json.loads(row.params),
            )
            for row in rows
        ]

    def put_regression(self, run: RegressionRun) -> None:
        """Store one regression test."""
        values = {
            "suite": run.suite,
            "created": run.created,
            "revision": run.revision,
            "versions": json.dumps(run.versions),
            "regressions": run.regressions,
            "facts": json.dumps([[*place, facts] for place, facts in run.facts.items()]),
        }
        with self.engine.begin() as connection:
            connection.execute(_REGRESSIONS.insert().values(**values))

    def regressions(self, suite: str) -> list[RegressionRun]:
        """Every stored regression test of a suite, the oldest first."""
        query = sa.select(_REGRESSIONS).where(_REGRESSIONS.c.suite == suite).order_by(_REGRESSIONS.c.number)
        with self.engine.connect() as connection:
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

    def studies(self) -> list[dict[str, Any]]:
        """Name, creation time and number of trials of each study."""
        count = sa.select(sa.func.count()).where(_TRIALS.c.study == _STUDIES.c.name, _TRIALS.c.mode != "reference")
        query = sa.select(_STUDIES.c.name, _STUDIES.c.created, count.scalar_subquery().label("trials"))
        with self.engine.connect() as connection:
            return [dict(row._mapping) for row in connection.execute(query.order_by(_STUDIES.c.created))]

    def study(self, name: str) -> dict[str, Any]:
        """The stored space text, provenance and creation time.

        Raises:
            UserError: no such study; names those there are.
        """
        with self.engine.connect() as connection:
            row = connection.execute(sa.select(_STUDIES).where(_STUDIES.c.name == name)).one_or_none()
        if row is None:
            known = ", ".join(s["name"] for s in self.studies()) or "none"
            raise UserError("study", value=name, fix=f"studies in {self.url}: {known}")
        return {**row._mapping, "provenance": json.loads(row.provenance)}


def configure_sqlite(connection: Any, _: Any) -> None:
    """Write-ahead log: a commit survives ``kill -9`` and costs one append; readers do not block the writer."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA busy_timeout=30000")
    cursor.close()
