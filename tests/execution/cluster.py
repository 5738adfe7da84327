"""A real Ray cluster of two machines, both of them processes here, one of which is killed on the way.

``python -m tests.execution.cluster`` prints one JSON object of what came of calls over it.
"""

import contextlib
import json
import logging
import os
import signal
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

import moe_codesign as mc
from moe_codesign.compiler import ArtifactCache, Compiled, compile_all
from moe_codesign.errors import MachineError, UserError
from moe_codesign.execution import LOCAL, Done, Executor
from moe_codesign.execution.ray_pool import Ray
from moe_codesign.measure import MeasuringProcess, worker
from moe_codesign.versions import provenance
from tests.conftest import make_space
from tests.execution import jobs
from tests.faults import devices
from tests.faults.test_compiler_faults import requests

BAD_CALLS: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [
    (jobs.half, (3,)),
    (jobs.leave, (7,)),
    (jobs.system_exit, ()),
    (jobs.result_that_cannot_be_read, ()),
    (jobs.half, (jobs.FailsInWorker(),)),
]


def bad_calls(executor: Executor) -> list[str]:
    with executor.pool(1) as pool:
        found = [str(pool.call(function, *arguments, time_limit_s=300)) for function, arguments in BAD_CALLS]
        return [
            *found,
            str(pool.call(jobs.half, 3, time_limit_s=300)),
            str(pool.call(time.sleep, 60, time_limit_s=0.5)),
        ]


def alone(executor: Executor) -> list[str]:
    """The accelerators that four workers see, two on each machine, which work at the same time."""
    with executor.pool(4, accelerator="GPU") as pool:
        seen = pool.map_unordered(jobs.visible_devices, range(4), time_limit_s=300)
        return sorted(outcome.value for _, outcome in seen if isinstance(outcome, Done))


def killed_once(executor: Executor, folder: Path) -> dict[str, Any]:
    """The worker of one call is killed: the call is given again, and the others do not notice."""
    kills: list[int] = []

    def kill() -> None:
        until(lambda: (folder / "0").exists())
        kills.append(kill_actor(int((folder / "0").read_text().split()[0])))

    killing = threading.Thread(target=kill)
    killing.start()
    with executor.pool(2) as pool:
        items = [(str(folder), number) for number in range(6)]
        found = {item[1]: outcome for item, outcome in pool.map_unordered(jobs.note_and_wait, items, time_limit_s=300)}
    killing.join()
    times = {number: len((folder / str(number)).read_text().split()) for number in range(6)}
    return {"answers": [str(found[number]) for number in range(6)], "times": list(times.values())}


def killed_always(executor: Executor, folder: Path) -> dict[str, Any]:
    """Whoever has the call is killed."""
    (folder / "0").touch()
    ended = threading.Event()

    def kill() -> None:
        killed: set[str] = set()
        while not ended.wait(0.05):
            for pid in set((folder / "0").read_text().split()) - killed:
                killed.add(pid)
                kill_actor(int(pid))

    killing = threading.Thread(target=kill)
    killing.start()
    with executor.pool(1) as pool:
        outcome = pool.call(jobs.note_and_wait, (str(folder), 0), time_limit_s=300)
    ended.set()
    killing.join()
    return {"answer": str(outcome), "times": len((folder / "0").read_text().split())}


def kill_actor(pid: int) -> int:
    """Kill the actor whose worker a process is: it is the worker's parent."""
    with contextlib.suppress(psutil.NoSuchProcess):
        actor = psutil.Process(pid).parent()
        assert actor is not None
        actor.send_signal(signal.SIGKILL)
    return pid


def machine_lost(executor: Executor, folder: Path, lose: Callable[[], None]) -> dict[str, Any]:
    """One of two machines is lost while both have calls."""

    def lose_it() -> None:
        until(lambda: len(list(folder.iterdir())) >= 2)
        lose()

    losing = threading.Thread(target=lose_it)
    losing.start()
    with executor.pool(2) as pool:
        items = [(str(folder), number) for number in range(6)]
        found = {item[1]: outcome for item, outcome in pool.map_unordered(jobs.note_and_wait, items, time_limit_s=300)}
    losing.join()
    return {"answers": [str(found[number]) for number in range(6)]}


def compiled(executor: Executor, folder: Path) -> str:
    one = requests()["good"]
    (found,) = compile_all([one], ArtifactCache(folder), recompile=True, executor=executor).values()
    assert isinstance(found, Compiled), found
    return f"{found.facts} {found.compiler}"


def measured(executor: Executor) -> list[str]:
    worker._measure = devices.measure_on_sticky
    with MeasuringProcess("cpu", time_limit_s=60, executor=executor) as process:
        return [type(one).__name__ for one in process.measure(devices.JOB)]


def searched(name: str, folder: Path) -> list[str]:
    space = make_space(chips=["h100_sxm"], constraints={})
    storage = f"sqlite:///{folder / name}.db"
    return [str(trial) for trial in mc.search(space, trials=4, storage=storage, executor=name, jobs=2).trials]  # type: ignore[arg-type]


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def error(function: Callable[[], object]) -> str:
    try:
        function()
    except (MachineError, UserError) as error:
        return str(error)
    return ""


def other_versions() -> dict[str, str]:
    """As one machine says it, and not the other."""
    return {"triton": "1.0" if os.environ.get("MOE_CODESIGN_TEST_DRIVER") == str(os.getpid()) else "2.0"}


def main() -> None:
    import ray
    from ray.cluster_utils import Cluster

    worker.ACCELERATOR_OF["cpu"] = "GPU"
    machine: dict[str, Any] = {
        "num_cpus": 1,
        "num_gpus": 2,
        "object_store_memory": 80 * 2**20,
        "include_dashboard": False,
    }
    no_cluster = error(lambda: Ray(provenance))
    cluster = Cluster(initialize_head=True, head_node_args=machine)
    del machine["include_dashboard"]
    second = cluster.add_node(**machine)
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.CRITICAL)
    over = Ray(provenance)
    os.environ["MOE_CODESIGN_TEST_DRIVER"] = str(os.getpid())
    with tempfile.TemporaryDirectory() as name:
        folders = []
        for number in range(5):
            folders.append(Path(name) / str(number))
            folders[-1].mkdir()
        found = {
            "no_cluster": no_cluster,
            "cores": over.cores(),
            "bad_calls": [bad_calls(LOCAL), bad_calls(over)],
            "alone": alone(over),
            "compiled": [compiled(LOCAL, folders[0]), compiled(over, folders[1])],
            "measured": [measured(LOCAL), measured(over)],
            "searched": [searched("local", folders[0]), searched("ray", folders[1])],
            "killed_once": killed_once(over, folders[2]),
            "killed_always": killed_always(over, folders[3]),
            "other_versions": error(
                lambda: Ray(other_versions).pool(1).call(jobs.half, 3, time_limit_s=60),
            ),
            "no_tpu": error(lambda: over.pool(1, accelerator="TPU")),
            "machine_lost": machine_lost(over, folders[4], lambda: cluster.remove_node(second, allow_graceful=False)),
        }
    ray.shutdown()
    cluster.shutdown()  # type: ignore[no-untyped-call]
    print(json.dumps(found))


if __name__ == "__main__":
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        main()
