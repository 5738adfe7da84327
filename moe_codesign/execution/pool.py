"""A pool of worker processes whose time limits kill.

Whatever a function does to its process (it hangs, ignores SIGTERM, exits, crashes, raises what cannot be pickled) is an
:data:`CallResult` of that call alone; the pool goes on. Workers are spawned, never forked: a forked child would inherit
JAX's threads and locks, and import nothing from the current folder, whose files may be anybody's. On Linux they and all
that they have started die with their parent, however it dies.
"""

import contextlib
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, wait
from concurrent.futures import TimeoutError as FutureTimeout
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Any, Self, TypeVar

import psutil
from pebble import CONSTS, ProcessExpired, ProcessFuture, ProcessPool

from moe_codesign.errors import MachineError
from moe_codesign.execution import payload
from moe_codesign.execution.call_result import CallResult, Died, Raised, TimedOut
from moe_codesign.execution.scratch import scratch_folder
from moe_codesign.execution.spawn import SAFE_PATH, SafeContext, enter, interrupts_held, kill_group

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
_I = TypeVar("_I")
_T = TypeVar("_T")


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
        scratch: temporary files of the processes lie in a folder that is removed with the pool: one that hangs and is
            killed cannot.
    """

    def __init__(
        self,
        workers: int,
        *,
        initializer: Callable[..., None] | None = None,
        initargs: tuple[Any, ...] = (),
        calls_per_process: int | None = None,
        start_limit_s: float = START_LIMIT_S,
        scratch: bool = False,
    ) -> None:
        self._workers = workers
        self._folders = contextlib.ExitStack()
        self._scratch = str(self._folders.enter_context(scratch_folder())) if scratch else None
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
        self._folders.close()

    def start(self) -> None:
        """Start the workers now, without waiting for them; else they start at the first call."""
        with interrupts_held():
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
        return self.call_pickled(payload.pickled((0, function, arguments)), time_limit_s)

    def call_pickled(self, job: payload.Pickled, time_limit_s: float) -> CallResult[Any]:
        """:meth:`call` of what was pickled elsewhere."""
        ((_, outcome),) = self._run([job], time_limit_s)
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
        for number, outcome in self._run(payload.numbered(function, items, jobs), time_limit_s):
            yield jobs.pop(number), outcome

    def _run(self, jobs: Iterable[payload.Pickled], time_limit_s: float) -> Iterator[tuple[int, CallResult[Any]]]:
        """Each job's number and outcome. Few are under way at once, so that a call costs the same among a million."""
        to_do = iter(jobs)
        again: list[payload.Pickled] = []
        running: dict[ProcessFuture[bytes], payload.Pickled] = {}
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
                    job = again.pop() if again else next(to_do, None)
                    if job is None:
                        break
                    number, data = job
                    if isinstance(data, Raised):
                        yield number, data
                        continue
                    try:
                        running[self._pool.schedule(payload.call, args=[data], timeout=time_limit_s)] = job
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
                        kill_group(watch.places.get(future))
                    yield number, outcome
        finally:
            for future in running:
                future.cancel()

    def _new_pool(self) -> ProcessPool:
        return ProcessPool(
            self._workers,
            self._calls_per_process or 0,
            initializer=enter,
            initargs=(os.environ.get(SAFE_PATH), self._scratch, *self._initargs),
            context=SafeContext(),
        )

    def _stop(self) -> None:
        pids = list(self._pool._pool_manager.worker_manager.workers)
        self._pool.stop()
        self._pool.join()
        for pid in pids:
            kill_group(pid)


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


def _outcome(future: ProcessFuture[bytes], time_limit_s: float) -> CallResult[Any]:
    try:
        answer = future.result()
    except FutureTimeout:
        return TimedOut(time_limit_s)
    except ProcessExpired as error:
        kill_group(error.pid)
        return Died(error.exitcode)
    return payload.read(answer)
