"""Several processes on one study on a PostgreSQL server, some of which are killed: nothing is lost, nothing doubled."""

from collections import Counter

import pytest

import moe_codesign as mc
from moe_codesign.errors import UserError
from moe_codesign.extras import is_installed
from moe_codesign.storage.claims import MOST_KILLS, Worker
from moe_codesign.storage.database import Database
from tests.conftest import make_space
from tests.faults.searches import DEADLY, TOGETHER
from tests.faults.test_trials import in_forks


def test_killed_processes_lose_and_double_nothing(postgresql_url: str) -> None:
    found = in_forks("together", postgresql_url)
    assert found["statuses"] == [-9, -9, 0, 0]
    assert sorted(number for _, _, number in found["rows"]) == list(range(TOGETHER)), "the total over all processes"
    assert found["points"] == TOGETHER, "no point was evaluated twice"
    assert found["states"] == {"COMPLETE": TOGETHER}
    assert found["claims"] == 0
    times = Counter(number for _, number in found["evaluated"])
    assert set(times) == set(range(TOGETHER))
    assert sum(times.values()) <= TOGETHER + 2, "what the killed processes had begun, and nothing else, was begun again"
    assert len({process for process, _ in found["evaluated"]}) == 4


def test_a_trial_over_which_three_processes_were_killed_is_given_up(postgresql_url: str) -> None:
    found = in_forks("deadly_together", postgresql_url)
    assert found["statuses"] == [-9, -9, -9, 0]
    assert found["failures"] == {str(DEADLY): f"error: the process that evaluated it was killed {MOST_KILLS} times"}
    assert found["states"] == {"COMPLETE": 12}


def test_a_process_that_sleeps_is_taken_for_gone_and_stores_nothing_when_it_wakes(postgresql_url: str) -> None:
    found = in_forks("asleep", postgresql_url)
    assert (found["other"], found["slept"]) == (0, 0)
    assert found["given_again"] == 1
    assert sorted(number for _, _, number in found["rows"]) == list(range(12))
    assert (found["points"], found["claims"]) == (12, 0)


def test_an_enumeration_is_shared_and_is_the_same(postgresql_url: str) -> None:
    found = in_forks("enumerating", postgresql_url)
    assert found["statuses"] == [-9, 0, 0]
    assert found["same"]
    assert found["left"] == 0
    assert found["trials"] > 0


def test_a_process_that_leaves_gives_its_work_back(postgresql_url: str) -> None:
    with Database(postgresql_url) as database, Worker.join(database, "s") as here:
        with Worker.join(database, "s") as other:
            with other.turn("a chip") as turn:
                claim = turn.claim("a chip", "nested", 0, {"num_experts": 64})
                assert not turn.is_free(claim)
            with here.turn("a chip") as turn:
                (found,) = turn.claims("a chip", "nested").values()
                assert not turn.is_free(found), "its process lives"
            other.release(claim)
        with here.turn("a chip") as turn:
            (found,) = turn.claims("a chip", "nested").values()
            assert turn.is_free(found)
            taken = turn.take_over(found)
        assert (taken.kills, taken.params, taken.worker) == (0, {"num_experts": 64}, here.name)
        here.finish(taken)
        with here.turn("a chip") as turn:
            assert turn.claims("a chip", "nested") == {}


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_a_url_needs_no_driver_and_a_missing_one_names_the_extra(
    scheme: str, postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgresql_url.replace("postgresql+psycopg", scheme)
    with Database(url) as database:
        assert database.url == postgresql_url
    monkeypatch.setattr("moe_codesign.extras.is_installed", lambda package: package != "psycopg")
    with pytest.raises(UserError, match=r'needs psycopg.*pip install "moe-codesign\[postgresql\]"'):
        mc.search(make_space(), trials=1, storage=url)


def test_a_server_that_is_away_is_one_line() -> None:
    if not is_installed("psycopg"):
        pytest.skip("psycopg is not installed")
    with pytest.raises(UserError, match=r"cannot be opened.*see that the server runs and lets this machine in"):
        mc.search(make_space(), trials=1, storage="postgresql://me:secret@127.0.0.1:1/db")
