"""Worker processes are killed at their start, while idle and while they work; nothing hangs and nothing is lost."""

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from moe_codesign.compiler import ArtifactCache, Compiled, Unanswered, build, compile_all
from moe_codesign.domain.failure import Failure
from moe_codesign.errors import MachineError
from moe_codesign.execution import CallResult, Died, Done, Pool
from moe_codesign.measure import Measurement, MeasuringProcess, worker
from tests.execution import jobs
from tests.execution.test_pool import LIMIT_S, ends
from tests.faults import devices
from tests.faults.test_compiler_faults import good, many_requests, stubborn_compile

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")
ROOT = str(Path(__file__).parents[2])


def started_workers() -> list[psutil.Process]:
    """Worker processes that are children of this one, also those that still import."""
    found = []
    for child in psutil.Process().children():
        try:
            if any("spawn_main" in word for word in child.cmdline()):
                found.append(child)
        except psutil.Error:
            continue
    return found


@contextmanager
def killing_the_first(count: int) -> Iterator[list[int]]:
    """SIGKILL for the first workers that start meanwhile, as soon as they are seen."""
    killed: list[int] = []
    over = threading.Event()

    def watch() -> None:
        while len(killed) < count and not over.wait(0.002):
            for process in started_workers():
                if process.pid not in killed and len(killed) < count:
                    process.kill()
                    killed.append(process.pid)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("each", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_every_death_is_its_own_calls_result(each: int) -> None:
    ways = [(kind, n) for n in range(each) for kind in ("SIGKILL", "good", "SIGSEGV", "exit")]
    expected: dict[str, Callable[[int], CallResult[int]]] = {
        "SIGKILL": lambda _: Died(-signal.SIGKILL), "SIGSEGV": lambda _: Died(-signal.SIGSEGV),
        "exit": lambda _: Died(3), "good": Done,
    }  # fmt: skip
    gaps, last = [], time.monotonic()
    found = {}
    with Pool(2) as pool:
        for way, outcome in pool.map_unordered(jobs.end, ways, time_limit_s=LIMIT_S):
            found[way] = outcome
            gaps.append(time.monotonic() - last)
            last = time.monotonic()
    assert found == {(kind, n): expected[kind](n) for kind, n in ways}
    assert max(gaps) < 5, "another worker takes over"


@pytest.mark.parametrize("count", [1, 2])
def test_workers_killed_as_they_start_cost_nothing(count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "compile_one", good)
    wanted = many_requests(12)
    with killing_the_first(count) as killed:
        found = compile_all(wanted, ArtifactCache(tmp_path), jobs=2, time_limit_s=LIMIT_S, recompile=True)
    assert len(killed) == count
    assert all(isinstance(found[one], Compiled) for one in wanted)
    again = ArtifactCache(tmp_path)
    assert all(again.get(one) == found[one] for one in wanted)


def alive(job: object, platform: object) -> list[Measurement | Failure]:
    return []


def test_a_measuring_process_killed_at_its_start_or_while_idle_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_measure", alive)
    with MeasuringProcess("cpu", time_limit_s=LIMIT_S) as process:
        with killing_the_first(1) as killed:
            assert process.measure(devices.JOB) == []
        assert len(killed) == 1
        for wait_s in (0.0, 0.3):
            (idle,) = started_workers()
            idle.kill()
            time.sleep(wait_s)
            start = time.monotonic()
            assert process.measure(devices.JOB) == []
            assert time.monotonic() - start < 5


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_that_leave_at_their_start_are_an_error_and_not_a_wait(workers: int) -> None:
    with Pool(workers, initializer=jobs.leave_at_start) as pool, pytest.raises(MachineError, match="as they start"):
        pool.call(jobs.half, 3, time_limit_s=LIMIT_S)


def test_a_sticky_device_error_costs_its_own_candidate_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_measure", devices.measure_on_sticky)
    with MeasuringProcess("cpu", time_limit_s=30) as process:
        outcomes = process.measure(devices.JOB)
    assert [type(one) for one in outcomes] == [Measurement, Failure, Measurement, Measurement]
    assert "the measuring process died (exit code 70)" in str(outcomes[1])


def killed_once(job: object, platform: object) -> list[Measurement | Failure]:
    marker = Path(os.environ["MOE_CODESIGN_TEST_MARKER"])
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return []


def test_what_the_system_killed_is_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_measure", killed_once)
    monkeypatch.setenv("MOE_CODESIGN_TEST_MARKER", str(tmp_path / "marker"))
    with MeasuringProcess("cpu", time_limit_s=30) as process:
        assert process.measure(dataclasses.replace(devices.JOB, candidates=(devices.pair(1),))) == []


def test_a_compile_that_ignores_sigterm_goes_at_its_limit_with_what_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "compile_one", stubborn_compile)
    monkeypatch.setenv("MOE_CODESIGN_TEST_MARKER", str(tmp_path / "pids"))
    (one,) = many_requests(1)
    (result,) = compile_all([one], ArtifactCache(tmp_path), time_limit_s=2, recompile=True).values()
    took = time.time() - (tmp_path / "pids").stat().st_mtime
    assert result == Unanswered(kind="timeout", reason="no result within 2 s")
    assert took < 4
    assert [ends(int(pid)) for pid in (tmp_path / "pids").read_text().split()] == [True, True]


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's own signal")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_nothing_outlives_a_killed_parent(number: signal.Signals, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    (tmp_path / "script.py").write_text(
        "import signal\n"
        "from moe_codesign.execution import Pool\n"
        "from tests.execution import jobs\n"
        "if __name__ == '__main__':\n"
        f"    signal.signal({int(number)}, signal.SIG_DFL) if {int(number)} != signal.SIGKILL else None\n"
        f"    Pool(1).call(jobs.start_a_child_and_hang, {str(pids)!r}, time_limit_s=300)\n"
    )
    path = os.pathsep.join(filter(None, [ROOT, os.environ.get("PYTHONPATH", "")]))
    parent = subprocess.Popen([sys.executable, tmp_path / "script.py"], env={**os.environ, "PYTHONPATH": path})
    while not pids.exists() or " " not in pids.read_text():
        assert parent.poll() is None
        time.sleep(0.02)
    parent.send_signal(number)
    parent.wait()
    start = time.monotonic()
    assert [ends(int(pid)) for pid in pids.read_text().split()] == [True, True]
    assert time.monotonic() - start < 5


def test_workers_import_nothing_from_the_current_folder(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    for module in ("pickle", "struct", "signal", "psutil", "numpy"):
        (tmp_path / "here" / f"{module}.py").write_text(
            f"open({str(tmp_path / 'ran')!r}, 'w').close()\nraise SystemExit(0)\n"
        )
    (tmp_path / "script.py").write_text(
        "import os\n"
        "from moe_codesign.execution import Done, Pool\n"
        "from tests.execution import jobs\n"
        "if __name__ == '__main__':\n"
        "    with Pool(1) as pool:\n"
        "        assert pool.call(jobs.half, 3, time_limit_s=60) == Done(1.5)\n"
        "        assert pool.call(os.getenv, 'PYTHONSAFEPATH', time_limit_s=60) == Done(None)\n"
        "    assert 'PYTHONSAFEPATH' not in os.environ\n"
    )
    path = os.pathsep.join(filter(None, [ROOT, os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py"],
        cwd=tmp_path / "here", env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert not (tmp_path / "ran").exists()
