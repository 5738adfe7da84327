"""What every database must do for studies and regression tests: SQLite, and PostgreSQL where a server is installed."""

import dataclasses
import multiprocessing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings

from moe_codesign.domain.trial import Answered, Refused, Trial
from moe_codesign.errors import UserError
from moe_codesign.storage.database import FORMAT, Database, exists, say_in_one_line
from moe_codesign.storage.regressions import RegressionRun, Regressions
from moe_codesign.storage.studies import Studies
from tests.domain.test_results import FAILURE, PAIR
from tests.domain.values import trials

ANSWERED = Trial(chip="a chip", mode="joint", number=0, params={"num_experts": 8}, outcome=Answered((PAIR,)))
REFUSED = dataclasses.replace(ANSWERED, number=1, outcome=Refused(FAILURE))


@pytest.fixture
def url(storage_url: str) -> str:
    return storage_url


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    with Database(url) as database:
        yield database


@pytest.fixture
def studies(database: Database) -> Studies:
    return Studies(database)


def names(url: str) -> list[str]:
    with Database(url) as database:
        return [study["name"] for study in Studies(database).every()]


def execute(url: str, statement: str, **values: Any) -> None:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text(statement), values)
    engine.dispose()


def _open(url: str) -> None:
    with Database(url) as database:
        Studies(database).begin("s", "{}", {})


class TestStudies:
    def test_trials_come_back_equal_and_in_order(self, studies: Studies, url: str) -> None:
        for trial in (REFUSED, dataclasses.replace(ANSWERED, mode="nested"), ANSWERED):
            studies.put("s", trial)
        with Database(url) as database:
            again = Studies(database)
            assert again.trials("s") == [ANSWERED, REFUSED, dataclasses.replace(ANSWERED, mode="nested")]
            assert again.trials("another") == []

    @settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(trial=trials())
    def test_every_trial_comes_back_equal(self, studies: Studies, trial: Trial) -> None:
        studies.put("s", trial)
        assert trial in studies.trials("s")

    def test_a_trial_evaluated_again_replaces_itself(self, studies: Studies) -> None:
        studies.put("s", dataclasses.replace(REFUSED, number=0))
        studies.put("s", ANSWERED)
        assert studies.trials("s") == [ANSWERED]

    def test_the_reference_is_no_trial(self, studies: Studies) -> None:
        studies.begin("s", "{}", {})
        studies.put_reference("s", "a chip", (PAIR,))
        studies.put_reference("s", "another", ())
        studies.put_reference("s", "a chip", (PAIR,))
        assert studies.references("s") == {"a chip": (PAIR,), "another": ()}
        assert studies.trials("s") == []
        assert [study["trials"] for study in studies.every()] == [0]

    def test_a_study_is_begun_once(self, studies: Studies) -> None:
        studies.begin("s", "{}", {"triton": "1"})
        studies.begin("s", "{}", {"triton": "2"})
        assert studies.get("s").provenance == {"triton": "1"}
        with pytest.raises(UserError, match="another space"):
            studies.begin("s", '{"seed": 1}', {})
        with pytest.raises(UserError, match="another space"):
            studies.check("s", '{"seed": 1}')
        studies.check("s", "{}")
        studies.check("t", "{}")
        assert [study["name"] for study in studies.every()] == ["s"]

    def test_an_unknown_study_is_one_line_with_those_there_are(self, studies: Studies) -> None:
        with pytest.raises(UserError, match="has no study"):
            studies.get("t")
        studies.begin("s", "{}", {})
        with pytest.raises(UserError, match=r"'t'; studies in .*: s$"):
            studies.get("t")

    @pytest.mark.parametrize(
        ("old", "new", "says"),
        [
            ('"gated"', '"gate"', "gate"),
            ('"latency_us":', '"us":', "latency_us"),
            ('"bound_us":1.0', '"bound_us":-1.0', "bound_us"),
        ],
    )
    def test_a_trial_that_cannot_be_read_names_the_study(
        self, studies: Studies, url: str, old: str, new: str, says: str
    ) -> None:
        studies.put("s", ANSWERED)
        execute(url, "update moe_codesign_trials set outcome = replace(outcome, :old, :new)", old=old, new=new)
        with pytest.raises(UserError) as error:
            studies.trials("s")
        assert "study 's'" in str(error.value)
        assert says in str(error.value)
        assert "\n" not in str(error.value)

    def test_a_study_is_held_by_one_process(self, studies: Studies, url: str) -> None:
        with Database(url) as other:
            with studies.database.lock("s"):
                with pytest.raises(UserError, match="another process"), other.lock("s"):
                    pass
                with other.lock("t"):
                    pass
            with other.lock("s"):
                pass

    def test_many_processes_can_make_the_database_at_once(self, url: str) -> None:
        context = multiprocessing.get_context("spawn")
        processes = [context.Process(target=_open, args=(url,)) for _ in range(3)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0, 0, 0]
        assert names(url) == ["s"]


class TestRegressions:
    def test_runs_come_back_equal(self, database: Database, url: str) -> None:
        run = RegressionRun("s", "2026-01-01", "abc", {"triton": "1"}, 1, {("k", "c", "t"): {"cycles": 3.0}})
        Regressions(database).put(run)
        with Database(url) as again:
            assert Regressions(again).of("s") == [run]
            assert Regressions(again).of("t") == []


class TestFormat:
    @pytest.mark.parametrize("number", [1, FORMAT + 1])
    def test_another_format_is_one_line(self, url: str, number: int) -> None:
        with Database(url):
            pass
        execute(url, "update moe_codesign_version set format = :number", number=number)
        with pytest.raises(UserError, match=f"format {number}; this one reads format {FORMAT}; give another --storage"):
            Database(url)

    def test_format_2_which_had_no_notes_on_pairs_is_read(self, url: str) -> None:
        with Database(url) as database:
            Studies(database).put("s", ANSWERED)
        execute(url, "update moe_codesign_trials set outcome = replace(outcome, :field, '')", field=',"notes":[]')
        execute(url, "update moe_codesign_version set format = 2")
        for _ in range(2):
            with Database(url) as database:
                assert Studies(database).trials("s") == [ANSWERED]
                with database.engine.connect() as connection:
                    assert connection.scalar(sa.text("select format from moe_codesign_version")) == FORMAT

    def test_a_database_from_before_there_were_formats_is_one_line(self, url: str) -> None:
        execute(url, "create table moe_codesign_studies (name varchar(200) primary key, space text)")
        with pytest.raises(UserError, match=r"earlier version.*move the old results away"):
            Database(url)

    def test_a_database_that_was_left_half_made_is_completed(self, url: str) -> None:
        execute(url, "create table moe_codesign_version (id integer primary key, format integer not null)")
        _open(url)
        assert names(url) == ["s"]


def test_a_file_that_is_not_there_can_be_required(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'missing.db'}"
    assert not exists(url)
    with pytest.raises(UserError, match=r"missing\.db.*no such file"):
        Database(url, must_exist=True)
    assert not (tmp_path / "missing.db").exists()
    with Database(url):
        assert exists(url)
    with Database(url, must_exist=True):
        pass


@pytest.mark.parametrize("url", ["nonsense", "sqlite:////proc/nowhere/x.db", "mysql+nothing://x"])
def test_what_cannot_be_opened_is_one_line(url: str) -> None:
    with pytest.raises(UserError, match="cannot be opened"):
        Database(url, must_exist=True) if url == "nonsense" else Database(url)


def test_an_interrupt_while_a_connection_goes_back_is_raised_and_not_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'one.db'}")
    say_in_one_line(engine, "one")
    raised: type[BaseException] = KeyboardInterrupt

    def interrupt(*_: object) -> None:
        raise raised

    sa.event.listen(engine, "reset", interrupt)
    with pytest.raises(KeyboardInterrupt):
        engine.connect().close()
    assert not caplog.records
    raised = ValueError
    engine.connect().close()
    assert [record.message for record in caplog.records] == ["Exception during reset or similar"]
