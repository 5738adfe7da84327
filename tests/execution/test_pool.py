"""Workers hang, exit, crash and send what cannot be read; each is a value, and the pool goes on."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from moe_codesign.errors import MachineError
from moe_codesign.execution import CallResult, Died, Done, Pool, Raised, TimedOut
from tests.execution import jobs

LIMIT_S = 300.0
"""Longer than pytest allows: an outcome that is noticed only at the limit fails."""


def ends(pid: int) -> bool:
    """Whether a process is no more (or a zombie, which its parent has not looked at) soon."""
    for _ in range(200):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
            os.kill(pid, 0)
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.05)
    return False


def test_each_item_comes_with_its_outcome() -> None:
    with Pool(2) as pool:
        found = dict(pool.map_unordered(jobs.half, range(6), time_limit_s=LIMIT_S))
        assert found == {n: Done(n / 2) for n in range(6)}
        assert dict(pool.map_unordered(jobs.half, [], time_limit_s=LIMIT_S)) == {}


def test_many_items_are_taken_as_workers_come_free() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(50):
            taken.append(number)
            yield number

    with Pool(2) as pool:
        outcomes = pool.map_unordered(jobs.half, items(), time_limit_s=LIMIT_S)
        next(outcomes)
        assert len(taken) < 20
        assert len(list(outcomes)) == 49


def test_what_one_item_does_to_its_process_is_its_own_outcome() -> None:
    with Pool(2) as pool:
        found = dict(pool.map_unordered(jobs.misbehave, ["hang", "exit", "raise", "good"], time_limit_s=2))
    assert found == {"hang": TimedOut(2), "exit": Died(0), "raise": Raised("SystemExit", "3"), "good": Done("good")}


BAD_CALLS: list[tuple[Callable[..., Any], tuple[Any, ...], CallResult[Any]]] = [
    (jobs.leave, (0,), Died(0)),
    (jobs.leave, (7,), Died(7)),
    (jobs.kill, (signal.SIGSEGV,), Died(-signal.SIGSEGV)),
    (jobs.kill, (signal.SIGKILL,), Died(-signal.SIGKILL)),
    (jobs.system_exit, (), Raised("SystemExit", "3")),
    (jobs.raise_timeout, (), Raised("TimeoutError", "the function's own")),
    (jobs.raise_bad_pickle, (), Raised("NeedsTwoError", "first line")),
    (jobs.result_that_cannot_be_read, (), Raised("RuntimeError", "not here")),
    (jobs.half, (jobs.FailsInWorker(),), Raised("RuntimeError", "not here")),
]


def test_a_worker_outlives_every_bad_call() -> None:
    with Pool(1) as pool:
        for function, arguments, expected in BAD_CALLS:
            assert pool.call(function, *arguments, time_limit_s=LIMIT_S) == expected
            assert pool.call(jobs.half, 3, time_limit_s=LIMIT_S) == Done(1.5)
        for unpicklable in (
            pool.call(jobs.result_that_cannot_be_written, time_limit_s=LIMIT_S),
            pool.call(jobs.half, lambda: None, time_limit_s=LIMIT_S),
        ):
            assert isinstance(unpicklable, Raised)
            assert "pickle" in unpicklable.text


def test_one_worker_keeps_its_state_until_it_is_killed() -> None:
    with Pool(1, initializer=jobs.enter, initargs=("",)) as pool:
        counts = [pool.call(jobs.count_calls, time_limit_s=LIMIT_S) for _ in range(3)]
        assert counts == [Done(41), Done(42), Done(43)]
        assert pool.call(jobs.hang_for_ever, time_limit_s=0.5) == TimedOut(0.5)
        assert pool.call(jobs.count_calls, time_limit_s=LIMIT_S) == Done(41)


def test_fresh_processes_share_nothing() -> None:
    with Pool(2, calls_per_process=1) as pool:
        pids = [outcome for _, outcome in pool.map_unordered(jobs.pid, range(4), time_limit_s=LIMIT_S)]
        assert len(set(pids)) == 4
        assert pool.call(jobs.leave, 0, time_limit_s=LIMIT_S) == Died(0)


def test_a_worker_that_dies_between_calls_is_replaced() -> None:
    with Pool(1) as pool:
        pid = pool.call(jobs.pid, time_limit_s=LIMIT_S)
        assert isinstance(pid, Done)
        os.kill(pid.value, signal.SIGKILL)
        time.sleep(0.5)
        assert pool.call(jobs.half, 3, time_limit_s=LIMIT_S) == Done(1.5)


def test_workers_that_cannot_start_are_an_error_and_not_a_wait() -> None:
    with (
        Pool(1, initializer=jobs.enter, initargs=("fail",)) as pool,
        pytest.raises(MachineError, match="as they start"),
    ):
        pool.call(jobs.half, 3, time_limit_s=LIMIT_S)


def test_workers_that_hang_as_they_start_are_an_error_and_not_a_wait() -> None:
    # Here alone: in a child process of another test, which imports this module, it would hang too.
    from tests.execution import hanging

    with Pool(1, initializer=hanging.enter, start_limit_s=1) as pool:
        with pytest.raises(MachineError, match="have not started in 1 s; an import hangs"):
            pool.call(jobs.half, 3, time_limit_s=LIMIT_S)
        (worker,) = pool._pool._pool_manager.worker_manager.workers
    assert ends(worker)


def test_a_call_that_takes_longer_than_a_start_may_is_no_hanging_start() -> None:
    with Pool(1, start_limit_s=5) as pool:
        assert pool.call(jobs.half, 3, time_limit_s=LIMIT_S) == Done(1.5)
        pool._start_limit_s = 0.3
        assert pool.call(time.sleep, 1, time_limit_s=LIMIT_S) == Done(None)


@pytest.mark.skipif(sys.platform == "win32", reason="process groups")
@pytest.mark.parametrize("job", [jobs.start_a_child_and_hang, jobs.start_a_child_and_crash])
def test_what_a_killed_worker_started_is_killed_too(tmp_path: Path, job: Callable[[str], None]) -> None:
    with Pool(1) as pool:
        outcome = pool.call(job, str(tmp_path / "pids"), time_limit_s=4)
        assert isinstance(outcome, TimedOut | Died)
        assert [ends(int(pid)) for pid in (tmp_path / "pids").read_text().split()] == [True, True]


@pytest.mark.skipif(sys.platform == "win32", reason="process groups")
def test_leaving_stops_what_still_runs(tmp_path: Path) -> None:
    with Pool(2) as pool:
        outcomes = pool.map_unordered(jobs.pid, [0, 1], time_limit_s=LIMIT_S)
        first = next(outcomes)[1]
        other = pool.call(jobs.pid, time_limit_s=LIMIT_S)
        assert isinstance(first, Done)
        assert isinstance(other, Done)
        pids = [first.value, other.value]
    assert [ends(pid) for pid in pids] == [True, True]


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's own signal")
def test_a_hanging_worker_dies_with_its_parent(tmp_path: Path) -> None:
    script = (
        "from moe_codesign.execution import Pool\n"
        "from tests.execution import jobs\n"
        "if __name__ == '__main__':\n"
        f"    Pool(1).call(jobs.start_a_child_and_hang, {str(tmp_path / 'pids')!r}, time_limit_s=300)\n"
    )
    (tmp_path / "script.py").write_text(script)
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]))
    parent = subprocess.Popen([sys.executable, tmp_path / "script.py"], env={**os.environ, "PYTHONPATH": path})
    while not (tmp_path / "pids").exists() or " " not in (tmp_path / "pids").read_text():
        assert parent.poll() is None
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    worker, child = map(int, (tmp_path / "pids").read_text().split())
    assert ends(worker)
    assert ends(child)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_an_interrupt_ends_the_program_at_once(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from moe_codesign.execution import Pool\n"
        "from tests.execution import jobs\n"
        "if __name__ == '__main__':\n"
        "    try:\n"
        "        with Pool(1) as pool:\n"
        f"            pool.call(jobs.start_a_child_and_hang, {str(tmp_path / 'pids')!r}, time_limit_s=300)\n"
        "    except KeyboardInterrupt:\n"
        "        sys.exit(130)\n"
    )
    (tmp_path / "script.py").write_text(script)
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    parent = subprocess.Popen([sys.executable, tmp_path / "script.py"], env={**os.environ, "PYTHONPATH": path})
    signal.signal(signal.SIGINT, before)
    while not (tmp_path / "pids").exists() or " " not in (tmp_path / "pids").read_text():
        assert parent.poll() is None
        time.sleep(0.05)
    parent.send_signal(signal.SIGINT)
    assert parent.wait(60) == 130
    assert [ends(int(pid)) for pid in (tmp_path / "pids").read_text().split()] == [True, True]


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_an_interrupt_while_workers_start_shows_no_traceback(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys, time\n"
        "from moe_codesign.execution import Pool\n"
        "if __name__ == '__main__':\n"
        "    try:\n"
        "        with Pool(2) as pool:\n"
        "            pool.start()\n"
        "            time.sleep(0.02)\n"
        "            os.killpg(0, signal.SIGINT)\n"
        "            time.sleep(60)\n"
        "    except KeyboardInterrupt:\n"
        "        sys.exit(130)\n"
    )
    (tmp_path / "script.py").write_text(script)
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py"],
        env={**os.environ, "PYTHONPATH": path},
        start_new_session=True,
        capture_output=True,
        text=True,
        check=False,
    )
    signal.signal(signal.SIGINT, before)
    assert (done.returncode, done.stderr) == (130, "")


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_an_interrupt_that_another_thread_is_given_waits_until_a_worker_has_started(tmp_path: Path) -> None:
    """It came between the start of a process and what that is sent, and the process printed a traceback."""
    script = (
        "import multiprocessing.util, os, signal, sys, threading, time\n"
        "from moe_codesign.execution import Pool\n"
        "start = multiprocessing.util.spawnv_passfds\n"
        "def interrupted(path, arguments, files):\n"
        "    pid = start(path, arguments, files)\n"
        "    if '--multiprocessing-fork' in map(os.fsdecode, arguments):\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"  # this thread holds it off, the other one does not
        "        time.sleep(0.2)\n"
        "    return pid\n"
        "if __name__ == '__main__':\n"
        "    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
        "    multiprocessing.util.spawnv_passfds = interrupted\n"
        "    try:\n"
        "        with Pool(1) as pool:\n"
        "            pool.start()\n"
        "    except KeyboardInterrupt:\n"
        "        sys.exit(130)\n"
    )
    (tmp_path / "script.py").write_text(script)
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py"],
        env={**os.environ, "PYTHONPATH": path}, start_new_session=True, capture_output=True, text=True, check=False,
    )  # fmt: skip
    signal.signal(signal.SIGINT, before)
    assert (done.returncode, done.stderr) == (130, "")
