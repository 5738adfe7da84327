"""A pool of worker processes whose time limits kill.

Whatever a function does to its process (it hangs, ignores SIGTERM, exits, crashes, raises what cannot be pickled) is an
:data:`CallResult` of that call alone; the pool goes on. Workers are spawned, never forked: a forked child would inherit
JAX's threads and locks, and import nothing from the current folder, whose files may be anybody's. On Linux they and all
that they have started die with their parent, however it dies.
"""

import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, wait
from concurrent.futures import TimeoutError as FutureTimeout
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnContext, SpawnProcess
from types import TracebackType
from typing import Any, Self, TypeVar

import psutil
from pebble import CONSTS, ProcessExpired, ProcessFuture, ProcessPool

from moe_codesign.errors import MachineError
from moe_codesign.execution.call_result import CallResult, Died, Done, Raised, TimedOut

_LOOK_S = 0.2
"""How often workers are looked at while nothing finishes."""
_STARTS = 3
"""Times in a row that workers may die before they take up any call: then they never will."""
START_LIMIT_S = 300.0
"""How long workers may take to start, imports and initializer included, before they are taken to hang. A busy machine
with a cold disk takes a minute for PyTorch."""
_GRACE_S = 1.0
"""How long after SIGTERM a worker is killed. Only one that ignores the signal is there so long."""
CONSTS.term_timeout = _GRACE_S
CONSTS.channel_lock_timeout = 20.0  # of a lock that a killed worker has left held; Pebble's minute is a long wait
_NO_START = (
    "worker processes die as they start; what they printed stands above, else the system may have killed them for want "
    "of memory"
)
_SAFE_PATH = "PYTHONSAFEPATH"
_I = TypeVar("_I")
_T = TypeVar("_T")
_Job = tuple[int, Callable[..., Any], tuple[Any, ...]]
_Pickled = tuple[int, bytes | Raised]


class _SafeProcess(SpawnProcess):
    """A process that starts without the current folder on its import path.

    Python would run a ``pickle.py`` there before anything of ours.
    """

    @staticmethod
    def _Popen(process_obj: Any) -> Any:  # noqa: N802 - multiprocessing's name
        with _safe_path():
            return SpawnProcess._Popen(process_obj)


class _SafeContext(SpawnContext):
    Process = _SafeProcess


class Pool:
    """Worker processes that run functions with a time limit.

    Use as a context manager: leaving it kills what still runs. Functions and initializer must be importable by name,
    arguments and results picklable.

    Args:
        workers: how many processes at once. One is a worker that keeps its state from call to call, until it dies or is
            killed and another takes its place.
        initializer: called in each new process with ``initargs``, before its first call.
        calls_per_process: after so many calls a process makes room for a new one; None: never. With 1 no call sees what
            another imported.
        start_limit_s: how long no process may take up a call before the pool is given up.
    """

    def __init__(
        self,
        workers: int,
        *,
        initializer: Callable[..., None] | None = None,
        initargs: tuple[Any, ...] = (),
        calls_per_process: int | None = None,
        start_limit_s: float = START_LIMIT_S,
    ) -> None:
        self._workers = workers
        self._initargs = (initializer, initargs)
        self._calls_per_process = calls_per_process
        self._start_limit_s = start_limit_s
        self._pool = self._new_pool()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def start(self) -> None:
        """Start the workers now, without waiting for them; else they start at the first call."""
        with _interrupts_held():
            if self._pool.active:
                return
        # A worker died while it had nothing to do, which makes Pebble give up.
        self._stop()
        self._pool = self._new_pool()
        self.start()

    def call(self, function: Callable[..., _T], *arguments: Any, time_limit_s: float) -> CallResult[_T]:
        """The outcome of one call.

        Args:
            function: what to call, with ``arguments``.
            time_limit_s: seconds from its start to its kill; a worker's own start does not count.

        Raises:
            MachineError: no worker process can start, or each hangs as it starts.
        """
        ((_, outcome),) = self._run([(0, function, arguments)], time_limit_s)
        return outcome

    def map_unordered(
        self, function: Callable[[_I], _T], items: Iterable[_I], *, time_limit_s: float
    ) -> Iterator[tuple[_I, CallResult[_T]]]:
        """Each item with the outcome of ``function(item)``, in the order in which they finish.

        Args:
            function: what to call.
            items: its arguments.
            time_limit_s: seconds from the start of one call to its kill.

        Raises:
            MachineError: no worker process can start.
        """
        jobs: dict[int, _I] = {}

        def numbered() -> Iterator[_Job]:
            for number, item in enumerate(items):
                jobs[number] = item
                yield number, function, (item,)

        for number, outcome in self._run(numbered(), time_limit_s):
            yield jobs.pop(number), outcome

    def _run(self, jobs: Iterable[_Job], time_limit_s: float) -> Iterator[tuple[int, CallResult[Any]]]:
        """Each job's number and outcome. Few are under way at once, so that a call costs the same among a million."""
        to_do = iter(jobs)
        again: list[_Pickled] = []
        running: dict[ProcessFuture[bytes], _Pickled] = {}
        watch = _Watch()
        starts = 0
        self.start()
        try:
            while True:
                if not self._pool.active:
                    starts += 1
                    if starts > _STARTS:
                        raise MachineError(_NO_START)
                    again += running.values()
                    running.clear()
                    self.start()
                while len(running) < 2 * self._workers:
                    job = again.pop() if again else _pickled(next(to_do, None))
                    if job is None:
                        break
                    number, payload = job
                    if isinstance(payload, Raised):
                        yield number, payload
                        continue
                    try:
                        running[self._pool.schedule(_call, args=[payload], timeout=time_limit_s)] = job
                    except RuntimeError:  # it has just been given up
                        again.append(job)
                        break
                if not running and not again:
                    return
                done, _ = wait(running, timeout=_LOOK_S, return_when=FIRST_COMPLETED)
                ended: dict[ProcessFuture[bytes], CallResult[Any]] = {}
                for future in done:
                    try:
                        ended[future] = _outcome(future, time_limit_s)
                    except BrokenProcessPool:
                        again.append(running.pop(future))
                if watch.look(self._pool, running):
                    ended |= dict.fromkeys(watch.left - done, Died(0))
                    ended |= dict.fromkeys(watch.overdue(time_limit_s) - done, TimedOut(time_limit_s))
                    if len(watch.idle) > _STARTS * self._workers:
                        raise MachineError(_NO_START)
                    if not ended and watch.waits_s() > self._start_limit_s:
                        raise MachineError(
                            f"worker processes have not started in {self._start_limit_s:g} s; an import hangs, or the "
                            "machine is too busy"
                        )
                for future, outcome in ended.items():
                    starts = 0
                    watch.ended()
                    number, _ = running.pop(future)
                    future.cancel()
                    if isinstance(outcome, TimedOut | Died):
                        _kill_group(watch.places.get(future))
                    yield number, outcome
        finally:
            for future in running:
                future.cancel()

    def _new_pool(self) -> ProcessPool:
        return ProcessPool(
            self._workers,
            self._calls_per_process or 0,
            initializer=_enter,
            initargs=(os.environ.get(_SAFE_PATH), *self._initargs),
            context=_SafeContext(),
        )

    def _stop(self) -> None:
        pids = list(self._pool._pool_manager.worker_manager.workers)
        self._pool.stop()
        self._pool.join()
        for pid in pids:
            _kill_group(pid)


class _Watch:
    """Which process runs which call, and since when.

    Pebble does not say so, and does not see three things: a worker that ends with exit code 0 during a call counts as
    one that is done, so that the call would run into its limit; one that ends so before its first call is replaced for
    ever; and no limit holds while a lock is held that a killed worker has taken along. All are seen in its managers.

    Attributes:
        places: the process of each call.
        left: calls that have lost their process.
        idle: processes that have been there since a call last ended or began.
    """

    def __init__(self) -> None:
        self.places: dict[ProcessFuture[bytes], int] = {}
        self.left: set[ProcessFuture[bytes]] = set()
        self.idle: set[int] = set()
        self._since: dict[ProcessFuture[bytes], float] = {}
        self._missed: set[ProcessFuture[bytes]] = set()
        self._looked = 0.0
        self._began = time.monotonic()

    def look(self, pool: ProcessPool, running: Collection[ProcessFuture[bytes]]) -> bool:
        """Look now, unless it has just been done."""
        now = time.monotonic()
        if now - self._looked < _LOOK_S:
            return False
        self._looked = now
        tasks = list(pool._pool_manager.task_manager.tasks.values())
        started = {task.future: task.worker_id for task in tasks if task.started and task.worker_id}
        # Places of those that have just ended, too: Pebble has forgotten them.
        self.places = {future: pid for future, pid in (self.places | started).items() if future in running}
        self._since = {future: self._since.get(future, now) for future in self.places}
        if self.places:
            self.idle.clear()
            self._began = now
        else:
            self.idle |= set(pool._pool_manager.worker_manager.workers)
        missing = {future for future, pid in self.places.items() if not psutil.pid_exists(pid)}
        # It takes two looks: the first may fall between the end of a process and the arrival of its result.
        self.left, self._missed = missing & self._missed, missing
        return True

    def ended(self) -> None:
        """A call has ended, so that there are processes that can start."""
        self.idle.clear()
        self._began = time.monotonic()

    def waits_s(self) -> float:
        """How long no process has had a call."""
        return self._looked - self._began

    def overdue(self, time_limit_s: float) -> set[ProcessFuture[bytes]]:
        """Calls that Pebble should have ended long ago."""
        latest = self._looked - time_limit_s - 2 * _GRACE_S
        return {future for future, since in self._since.items() if since < latest}


def _pickled(job: _Job | None) -> _Pickled | None:
    """What is sent to the worker; or what was raised, by whatever a user's class does, where it cannot be pickled."""
    if job is None:
        return None
    number, function, arguments = job
    try:
        return number, pickle.dumps((function, arguments))
    except Exception as error:
        return number, Raised.of(error)


def _outcome(future: ProcessFuture[bytes], time_limit_s: float) -> CallResult[Any]:
    try:
        answer = future.result()
    except FutureTimeout:
        return TimedOut(time_limit_s)
    except ProcessExpired as error:
        _kill_group(error.pid)
        return Died(error.exitcode)
    try:
        outcome: CallResult[Any] = pickle.loads(answer)  # noqa: S301 - written by our own child
    except Exception as error:  # whatever a class raises that cannot be unpickled
        return Raised.of(error)
    return outcome


def _call(job: bytes) -> bytes:
    """In the worker. Pickled here, not by Pebble, for which one bad pickle is the end of the pool."""
    outcome: CallResult[Any]
    try:
        function, arguments = pickle.loads(job)  # noqa: S301 - written by our own parent
        outcome = Done(function(*arguments))
    except BaseException as error:  # SystemExit too: it is the function's, not the worker's
        outcome = Raised.of(error)
    try:
        return pickle.dumps(outcome)
    except Exception as error:  # whatever a class raises that cannot be pickled
        return pickle.dumps(Raised.of(error))


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """What starts here, threads and what they start included, begins with SIGINT blocked.

    The terminal sends Ctrl-C to workers too, which ignore it once they run: one that is still importing would print a
    traceback.
    """
    if sys.platform == "win32":
        yield
        return
    with _safe_path():
        resource_tracker.ensure_running()  # where it starts, SIGINT is let through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_PATH_LOCK = threading.Lock()


@contextlib.contextmanager
def _safe_path() -> Iterator[None]:
    """A Python that starts meanwhile imports nothing from the current folder; :func:`_enter` takes the setting back."""
    with _PATH_LOCK:
        before = os.environ.get(_SAFE_PATH)
        os.environ[_SAFE_PATH] = "1" if before is None else before
        try:
            yield
        finally:
            if before is None:
                del os.environ[_SAFE_PATH]


def _enter(safe_path: str | None, initializer: Callable[..., None] | None, initargs: tuple[Any, ...]) -> None:
    """In the worker, first."""
    if safe_path is None:  # what a user's function starts has the user's own setting
        os.environ.pop(_SAFE_PATH, None)
    if sys.platform != "win32":
        # A group of its own, so that what it starts is killed with it; and SIGTERM as the system has it, which ends a
        # process that hangs in C at once, where Python's handler would never run.
        os.setpgid(0, 0)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    _die_with_parent()
    if initializer is not None:
        initializer(*initargs)


def _die_with_parent() -> None:
    """Be killed when the parent (more exactly: the thread that started this process) ends, with all one has started."""
    if sys.platform != "linux":
        return
    _signal_at_parents_end(signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid != os.getppid():  # it died before it was asked
        os._exit(1)
    worker = os.getpid()
    with warnings.catch_warnings():
        # JAX warns of every fork. It may be here, where a user's main module imports it; the child does not touch it.
        warnings.simplefilter("ignore")
        if os.fork():
            return
    # What follows is a second process, which only waits for the end of the first, by whatever signal, to kill their
    # group. Nobody else could: the kernel tells the children of a process alone.
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        os.closerange(0, 1 << 16)
        _signal_at_parents_end(signal.SIGTERM)
        while os.getppid() == worker:
            signal.sigwait({signal.SIGTERM})
        os.killpg(worker, signal.SIGKILL)
    finally:
        os._exit(0)


def _signal_at_parents_end(number: int) -> None:
    import ctypes

    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, number, 0, 0, 0)


def _kill_group(pid: int | None) -> None:
    """End what a worker that is no more has left running."""
    if pid is not None and sys.platform != "win32":
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
