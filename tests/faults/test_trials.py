"""Whatever one trial raises, or does to its process, is that trial's result; the study goes on and ends whole."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

import pytest

import moe_codesign as mc
from moe_codesign.compiler import CompileResult, Request, Unanswered
from moe_codesign.compiler.tile_table import Tables
from moe_codesign.domain.failure import FailureKind
from moe_codesign.domain.metrics import Objective
from moe_codesign.domain.trial import Outcome
from moe_codesign.errors import MachineError
from moe_codesign.storage.database import Database
from moe_codesign.storage.studies import Studies
from moe_codesign.study.evaluate import Evaluator
from moe_codesign.study.space import parse_space
from moe_codesign.study.trials import SampledTrials
from tests.conftest import make_space, space_text
from tests.faults.searches import DEADLY, MORE


class UnpicklableError(Exception):
    def __init__(self) -> None:
        super().__init__("first line\nsecond line")
        self.function = lambda: None

    def __reduce__(self) -> NoReturn:
        raise TypeError("not to be pickled")


EXCEPTIONS: list[BaseException] = [
    ValueError("v"), RuntimeError("r"), MemoryError(), KeyError("k"), ZeroDivisionError("z"), OSError(5, "o"),
    OverflowError("int too large to convert to float"), AssertionError(), RecursionError("deep"),
    FloatingPointError("f"), TypeError("t"), UnpicklableError(), SystemExit(0),
]  # fmt: skip


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 's.db'}"


def raises_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trial n raises exception n; the others are evaluated."""
    evaluate = Evaluator.evaluate

    def one(self: Evaluator, *arguments: Any, seed: int) -> Any:
        if seed < len(EXCEPTIONS):
            raise EXCEPTIONS[seed]
        return evaluate(self, *arguments, seed=seed)

    monkeypatch.setattr(Evaluator, "evaluate", one)


def test_any_exception_is_a_stored_result_and_the_search_goes_on(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    raises_each(monkeypatch)
    space = make_space(constraints={})
    result = mc.search(space, trials=len(EXCEPTIONS) + 5, storage=url)
    assert [trial.number for trial in result.trials] == list(range(len(EXCEPTIONS) + 5))
    for error, trial in zip(EXCEPTIONS, result.trials, strict=False):
        assert trial.failure is not None
        assert trial.failure.kind is FailureKind.ERROR
        assert trial.failure.text.startswith(type(error).__name__)
        assert "\n" not in trial.failure.text
        assert trial.params, "each trial has all its parameters"
    assert any(trial.pairs for trial in result.trials[len(EXCEPTIONS) :])
    monkeypatch.undo()
    again = mc.search(space, trials=len(EXCEPTIONS) + 8, storage=url)
    assert again.trials[: len(result.trials)] == result.trials, "what failed is not tried again by a resumed study"
    assert len(again.trials) == len(EXCEPTIONS) + 8


def test_a_proposal_that_raises_is_a_stored_result(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def overflow(*_: Any) -> NoReturn:
        raise OverflowError("int too large")

    monkeypatch.setattr("moe_codesign.study.trials.suggest_shape", overflow)
    result = mc.search(make_space(), trials=3, storage=url)
    assert [str(trial.failure) for trial in result.trials] == ["error: OverflowError: int too large"] * 3


def test_an_objective_that_is_no_number_is_a_failure(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Objective, "value", lambda *_: float("nan"))
    result = mc.search(make_space(constraints={}), trials=4, storage=url)
    kinds = {trial.failure.kind for trial in result.trials if trial.failure}
    assert len(result.trials) == 4
    assert FailureKind.ERROR in kinds
    assert any("decode.latency_us is nan" in str(trial.failure) for trial in result.trials)


def test_a_trial_that_was_stored_before_its_process_was_killed_is_not_evaluated_again(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate, tell, evaluated = Evaluator.evaluate, SampledTrials._tell, []

    def counted(self: Evaluator, *arguments: Any, seed: int) -> Any:
        evaluated.append(seed)
        return evaluate(self, *arguments, seed=seed)

    def killed(self: SampledTrials, work: Any, outcome: Outcome) -> None:
        if work.trial.number == 2:
            raise SystemExit("killed")
        tell(self, work, outcome)

    monkeypatch.setattr(Evaluator, "evaluate", counted)
    monkeypatch.setattr(SampledTrials, "_tell", killed)
    with pytest.raises(SystemExit):
        mc.search(make_space(), trials=5, storage=url)
    monkeypatch.setattr(SampledTrials, "_tell", tell)
    result = mc.search(make_space(), trials=5, storage=url)
    assert evaluated == list(range(5))
    assert [trial.number for trial in result.trials] == list(range(5))
    monkeypatch.setattr(Evaluator, "evaluate", evaluate)
    assert result.trials == mc.search(make_space(), trials=5, storage=url, study="another").trials


def test_a_reference_that_failed_by_chance_is_asked_again(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> NoReturn:
        raise MemoryError

    monkeypatch.setattr(Evaluator, "_time", fail)
    assert mc.search(make_space(), trials=2, storage=url).reference == {}
    monkeypatch.undo()
    (pair,) = mc.search(make_space(), trials=3, storage=url).reference["trainium2"]
    assert pair.timing.latency_us > 0


def test_a_search_whose_tiles_have_no_answer_is_not_begun(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    full = Unanswered(kind="crashed", reason="OSError: [Errno 28] No space left on device")
    compile_tiles = Tables.compile
    answered = 0

    def crash(self: Tables, requests: Iterable[Request]) -> dict[Request, CompileResult]:
        found = compile_tiles(self, requests)
        return {one: result if n < answered else full for n, (one, result) in enumerate(found.items())}

    monkeypatch.setattr(Tables, "compile", crash)
    space = make_space(chips=["h100_sxm"], constraints={})
    with pytest.raises(MachineError, match=r"no tile for cuda:90 could be compiled \(crashed: OSError.*try again"):
        mc.search(space, trials=2, storage=url)
    with Database(url) as database:
        assert Studies(database).every() == []
    answered = 10**6
    assert mc.search(space, trials=2, storage=url, study="a").notes == ()
    answered = 4
    (note,) = mc.search(space, trials=2, storage=url, study="b").notes
    assert "tiles for cuda:90 have no answer (crashed: OSError" in note


def in_forks(what: str, where: Path | str, *more: str) -> dict[str, Any]:
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.searches", what, str(where), *more],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


@pytest.mark.skipif(sys.platform == "win32", reason="fork")
def test_a_trial_that_kills_its_process_is_tried_twice_more_and_given_up(tmp_path: Path) -> None:
    found = in_forks("deadly", tmp_path)
    assert found["statuses"] == [-9, -9, -9, 0]
    assert found["failures"][str(DEADLY)] == "error: the process that evaluated it was killed 3 times"
    assert sorted(number for _, _, number in found["rows"]) == list(range(6))
    assert found["states"] == {"COMPLETE": 6}


@pytest.mark.skipif(sys.platform == "win32", reason="fork")
@pytest.mark.parametrize("times", [10, pytest.param(50, marks=pytest.mark.slow)])
def test_kills_at_random_times_lose_and_double_nothing(times: int, tmp_path: Path) -> None:
    found = in_forks("killed", tmp_path, str(times))
    assert found["last"] == 0
    asked = found["before"] + MORE
    assert found["before"] > 0
    assert sorted(number for _, _, number in found["rows"]) == list(range(asked))
    assert found["states"] == {"COMPLETE": asked}


def test_the_same_seed_gives_the_same_trials_whatever_the_workers_and_the_hash_seed(tmp_path: Path, url: str) -> None:
    chips = ["h100_sxm", "trainium2"]
    space = space_text(chips=chips, modes=["joint", "nested"], min_quality_ratio=None)
    (tmp_path / "space.toml").write_text(space)
    here = mc.search(parse_space(space), trials=12, jobs=1, storage=url)
    other = f"sqlite:///{tmp_path / 'other.db'}"
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [sys.executable, "-m", "moe_codesign.cli", "search", "space.toml", "--trials", "12", "--jobs", "2",
         "--storage", other, "--json"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "1"}, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert mc.load_study("test", storage=other).trials == here.trials
    another = mc.search(parse_space(space.replace("training_tokens", "seed = 1\ntraining_tokens")), trials=12,
                        storage=url, study="another")  # fmt: skip
    assert another.trials != here.trials
