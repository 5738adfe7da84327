"""The Ray executor gives what the local pool gives, and loses no call with a worker or a machine of the cluster."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from moe_codesign.api.executors import executor_of
from moe_codesign.errors import UserError
from moe_codesign.execution import Died, Done
from moe_codesign.extras import is_installed

ROOT = str(Path(__file__).parents[2])


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    if not is_installed("ray"):
        pytest.skip("Ray is not installed; pip install 'moe-codesign[ray]'")
    path = os.pathsep.join(filter(None, [ROOT, os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [sys.executable, "-m", "tests.execution.cluster"],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False, timeout=550,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)  # to which Ray has added nothing
    return answer


@pytest.mark.parametrize("what", ["bad_calls", "compiled", "measured", "searched"])
def test_results_are_those_of_the_local_pool(what: str, found: dict[str, Any]) -> None:
    here, there = found[what]
    assert there == here
    assert here


def test_each_worker_has_an_accelerator_to_itself(found: dict[str, Any]) -> None:
    assert found["alone"] == ["0", "0", "1", "1"]
    assert found["cores"] == 2


def test_the_call_of_a_killed_worker_is_given_again(found: dict[str, Any]) -> None:
    assert found["killed_once"]["answers"] == [str(Done(number)) for number in range(6)]
    assert sorted(found["killed_once"]["times"]) == [1, 1, 1, 1, 1, 2]


def test_a_call_over_which_three_workers_were_killed_is_given_up(found: dict[str, Any]) -> None:
    assert found["killed_always"] == {"answer": str(Died(-9)), "times": 3}


def test_a_machine_that_is_lost_costs_no_call(found: dict[str, Any]) -> None:
    assert found["machine_lost"]["answers"] == [str(Done(number)) for number in range(6)]


def test_what_cannot_run_is_one_line(found: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no cluster can be joined at 'auto'" in found["no_cluster"]
    assert "start one with `ray start --head`" in found["no_cluster"]
    assert "has triton 2.0; install there what is installed here" in found["other_versions"]
    assert found["no_tpu"] == "executor ray: the cluster has not 1 TPU; add a machine to it that has"
    monkeypatch.setattr("moe_codesign.extras.is_installed", lambda package: package != "ray")
    with pytest.raises(UserError, match=r'executor ray needs ray.*pip install "moe-codesign\[ray\]"'):
        executor_of("ray")
    with pytest.raises(UserError, match=r"executor: got 'slurm'; give one of local, ray"):
        executor_of("slurm")
