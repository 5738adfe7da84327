"""Calls over a Ray cluster, behind the face of the local pool.

A worker of the cluster is an actor that has a local pool of one process on its machine. What a call does to its process
is therefore the same result as here, with the same time limits and kills; Ray's part is to place workers, one
accelerator each where they measure, and to notice that a machine or an actor is gone. A call that it takes along is
given again at most twice, to another worker.
"""

import contextlib
import logging
import os
import signal
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

from moe_codesign.errors import MachineError, UserError, first_line
from moe_codesign.execution import payload
from moe_codesign.execution.call_result import CallResult, Died, Raised
from moe_codesign.execution.executor import Accelerator
from moe_codesign.execution.pool import START_LIMIT_S, Pool

_LOOK_S = 0.5
"""How often to look for workers that have started while no call finishes."""
_LEAVE_S = 3.0
"""How long workers have to remove their temporary files."""
_MOST_KILLS = 3
"""Workers that may be lost over one call."""
_KILLED = Died(-signal.SIGKILL) if hasattr(signal, "SIGKILL") else Died(1)
_I = TypeVar("_I")
_T = TypeVar("_T")


class Ray:
    """A cluster that is running: that of ``RAY_ADDRESS``, else the one that this machine is part of.

    Args:
        versions: says what a machine has installed; all machines must say the same, as results depend on it.

    Raises:
        UserError: no cluster is running, or its Ray or Python is another version than here.
    """

    def __init__(self, versions: Callable[[], Mapping[str, str]]) -> None:
        self._versions = versions
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        with _quiet():
            import ray

            # It prints what befalls its machines on the standard output, which may be a program's to read.
            ray._private.worker._worker_logs_enabled = False
            if ray.is_initialized():
                return
            address = os.environ.get("RAY_ADDRESS", "auto")
            try:
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise UserError(
                    f"executor ray: no cluster can be joined at {address!r} ({first_line(error)})",
                    fix="start one with `ray start --head`, or name one in RAY_ADDRESS",
                ) from None

    def cores(self) -> int:
        return max(1, int(_resources().get("CPU", 1)))

    def accelerators(self) -> frozenset[Accelerator]:
        kinds: tuple[Accelerator, ...] = ("GPU", "TPU")
        return frozenset(kind for kind in kinds if _resources().get(kind, 0) >= 1)

    def pool(
        self,
        workers: int,
        *,
        initializer: Callable[..., None] | None = None,
        initargs: tuple[Any, ...] = (),
        calls_per_process: int | None = None,
        scratch: bool = False,
        accelerator: Accelerator | None = None,
    ) -> "RayPool":
        how = {
            "initializer": initializer,
            "initargs": initargs,
            "calls_per_process": calls_per_process,
            "scratch": scratch,
        }
        return RayPool(workers, how, accelerator, self._versions)


class RayPool:
    """Workers over the cluster; use as a context manager, as :class:`moe_codesign.execution.pool.Pool`.

    Args:
        workers: how many at once. They start as the cluster has room for them.
        how: arguments of each worker's own pool.
        accelerator: of which each has one to itself; a worker without one has one core.
        versions: what a machine says that it has installed.
    """

    def __init__(
        self,
        workers: int,
        how: dict[str, Any],
        accelerator: Accelerator | None,
        versions: Callable[[], Mapping[str, str]],
    ) -> None:
        self._how, self._versions, self._needs = how, versions, _needs(accelerator)
        lacks = [f"{count} {name}" for name, count in self._needs.items() if _resources().get(name, 0) < count]
        if lacks:
            raise UserError(f"executor ray: the cluster has not {lacks[0]}", fix="add a machine to it that has")
        self._workers = workers
        self._idle: deque[Any] = deque()
        self._starting: dict[Any, Any] = {}
        self._lost = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import ray

        with _quiet(), contextlib.suppress(Exception):
            ray.wait([actor.leave.remote() for actor in self._idle], num_returns=len(self._idle), timeout=_LEAVE_S)
        for actor in [*self._idle, *self._starting.values()]:
            with contextlib.suppress(Exception):
                ray.kill(actor)
        self._idle.clear()
        self._starting.clear()

    def call(self, function: Callable[..., _T], *arguments: Any, time_limit_s: float) -> CallResult[_T]:
        ((_, outcome),) = self._run([payload.pickled((0, function, arguments))], time_limit_s)
        return outcome

    def map_unordered(
        self, function: Callable[[_I], _T], items: Iterable[_I], *, time_limit_s: float
    ) -> Iterator[tuple[_I, CallResult[_T]]]:
        jobs: dict[int, _I] = {}
        for number, outcome in self._run(payload.numbered(function, items, jobs), time_limit_s):
            yield jobs.pop(number), outcome

    def _run(self, jobs: Iterable[payload.Pickled], time_limit_s: float) -> Iterator[tuple[int, CallResult[Any]]]:
        """Each job's number and outcome. A job is sent to a worker that has started and has nothing to do."""
        import ray

        to_do = iter(jobs)
        again: list[payload.Pickled] = []
        kills: dict[int, int] = {}
        running: dict[Any, tuple[Any, payload.Pickled]] = {}
        begun = time.monotonic()
        more = True
        try:
            while True:
                self._start(len(running))
                while self._idle and (more or again):
                    job = again.pop() if again else next(to_do, None)
                    if job is None:
                        more = False
                    elif isinstance(job[1], Raised):
                        yield job[0], job[1]
                    else:
                        actor = self._idle.popleft()
                        running[actor.run.remote(job, time_limit_s)] = (actor, job)
                if not running and not again and not more:
                    return
                ready, _ = ray.wait([*running, *self._starting], num_returns=1, timeout=_LOOK_S)
                if running or ready:
                    begun = time.monotonic()
                elif time.monotonic() - begun > START_LIMIT_S:
                    raise MachineError(f"the Ray cluster has had no room for a worker in {START_LIMIT_S:g} s")
                for reference in ready:
                    if reference in self._starting:
                        self._started(reference)
                        continue
                    actor, job = running.pop(reference)
                    answer = self._answer(reference)
                    if isinstance(answer, bytes):
                        self._idle.append(actor)
                        yield job[0], payload.read(answer)
                        continue
                    kills[job[0]] = kills.get(job[0], 0) + 1
                    if kills[job[0]] < _MOST_KILLS:
                        again.append(job)
                    else:
                        yield job[0], _KILLED
        finally:
            for actor, _ in running.values():  # the calls of one who left before their end
                with contextlib.suppress(Exception):
                    ray.kill(actor)

    def _start(self, running: int) -> None:
        """Ask for as many workers as are missing."""
        for _ in range(self._workers - running - len(self._idle) - len(self._starting)):
            actor = _actor().options(**_options(self._needs)).remote(self._how)
            self._starting[actor.enter.remote(self._versions)] = actor

    def _started(self, reference: Any) -> None:
        actor = self._starting.pop(reference)
        answer = self._answer(reference)
        if answer is None:
            self._lost += 1
            if self._lost > _MOST_KILLS * self._workers:
                raise MachineError("the Ray cluster's workers die as they start; see its logs")
            return
        node, found = answer
        here = _released(self._versions())
        other = [
            f"{name} {found.get(name, 'absent')}" for name in {**here, **found} if here.get(name) != found.get(name)
        ]
        if other:
            raise MachineError(
                f"machine {node} of the Ray cluster has {', '.join(other)}; install there what is installed here, as "
                "results depend on it"
            )
        self._lost = 0
        self._idle.append(actor)

    def _answer(self, reference: Any) -> Any:
        """What a worker has answered; None where it is gone.

        Raises:
            MachineError: no process of its own can start.
        """
        import ray

        try:
            return ray.get(reference)
        except ray.exceptions.RayActorError:
            return None
        except ray.exceptions.RayTaskError as error:
            raise MachineError(f"a worker of the Ray cluster: {first_line(error.cause)}") from None


class _Worker:
    """The actor. What it is sent are bytes, which its process alone reads."""

    def __init__(self, how: dict[str, Any]) -> None:
        # A child process imports its parent's main module, which would be Ray's own, and Ray with it.
        vars(sys.modules["__main__"]).pop("__file__", None)
        self._pool = Pool(1, **how)

    def enter(self, versions: Callable[[], Mapping[str, str]]) -> tuple[str, dict[str, str]]:
        import socket

        return socket.gethostname(), _released(versions())

    def run(self, job: payload.Pickled, time_limit_s: float) -> bytes:
        return payload.written(self._pool.call_pickled(job, time_limit_s))

    def leave(self) -> None:
        self._pool.__exit__(None, None, None)


def _released(versions: Mapping[str, str]) -> dict[str, str]:
    """Versions without what they were built for: a machine with GPUs may have another build of PyTorch."""
    return {name: version.split("+")[0] for name, version in versions.items()}


def _actor() -> Any:
    import ray

    return ray.remote(_Worker)


def _needs(accelerator: Accelerator | None) -> dict[str, float]:
    return {"CPU": 1} if accelerator is None else {accelerator: 1}


def _options(needs: Mapping[str, float]) -> dict[str, Any]:
    return {
        "num_cpus": needs.get("CPU", 0),
        "num_gpus": needs.get("GPU", 0),
        "resources": {name: count for name, count in needs.items() if name not in ("CPU", "GPU")},
        "max_restarts": 0,
    }


def _resources() -> dict[str, float]:
    import ray

    found: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return found


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Ray warns of what its next version will do."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
