"""A study as Optuna's own tools load it: by nothing but the URL of its storage."""

import re
from pathlib import Path
from typing import Any

import optuna
import pytest

import moe_codesign as mc
from moe_codesign.domain.failure import Failure, FailureKind
from moe_codesign.domain.trial import Outcome, Refused
from moe_codesign.study.evaluate import Evaluator
from moe_codesign.study.space import SHAPE_FIELDS
from tests.conftest import make_space


def test_a_study_is_readable_to_whoever_loads_it_with_optuna(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = f"sqlite:///{tmp_path / 'r.db'}"
    plain = Evaluator.evaluate

    def evaluate(self: Evaluator, *args: Any, seed: int) -> Outcome:
        if seed % 3 == 1:
            return Refused(Failure(FailureKind.COMPILER, "too many registers", 0.5))
        return plain(self, *args, seed=seed)

    monkeypatch.setattr(Evaluator, "evaluate", evaluate)
    space = make_space(constraints={})
    result = mc.search(space, storage=storage, trials=6)
    study = optuna.load_study(study_name="test/trainium2/nested", storage=storage)
    assert study.metric_names == ["decode.latency_us", "quality"]
    assert study.user_attrs == {"chip": "trainium2", "law": "efficiency_leverage", "reference": "Qwen3-30B-A3B"}
    assert len(study.trials) == 6
    ours = {trial.number: trial for trial in result.trials if trial.mode == "nested"}
    kinds = set()
    for trial in study.trials:
        assert set(trial.params) == {"moe_intermediate_size", "num_experts", "num_experts_per_tok"} <= set(SHAPE_FIELDS)
        kinds.add(type(ours[trial.number].outcome).__name__)
        (violation,) = trial.constraints.values()
        assert trial.system_attrs["constraints"] == [violation], "where the dashboard looks for it"
        if (failure := ours[trial.number].failure) is not None:
            assert violation == failure.violation > 0
            assert trial.user_attrs == {"ruled out": str(failure)}
            continue
        (pair,) = ours[trial.number].pairs
        assert violation == 0
        assert set(trial.user_attrs) == {"shape", "time under decode"}
        assert trial.user_attrs["shape"] == pair.shape.label()
        assert re.fullmatch(r"[\d.]+ us \([\d.]+ \.\. [\d.]+\), datasheet", trial.user_attrs["time under decode"])
    assert kinds == {"Answered", "Refused"}
    assert all(ours[trial.number].pairs for trial in study.best_trials), "its best trials meet the constraints"
