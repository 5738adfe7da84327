"""How worker processes start and end: without the current folder on their path, and not longer than their parent."""

import contextlib
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any

SAFE_PATH = "PYTHONSAFEPATH"


class _SafeProcess(SpawnProcess):
    """A process that starts without the current folder on its import path.

    Python would run a ``pickle.py`` there before anything of ours.
    """

    @staticmethod
    def _Popen(process_obj: Any) -> Any:  # noqa: N802 - multiprocessing's name
        with _safe_path():
            return SpawnProcess._Popen(process_obj)


class SafeContext(SpawnContext):
    """Starts such processes."""

    Process = _SafeProcess


@contextlib.contextmanager
def interrupts_held() -> Iterator[None]:
    """What starts here, threads and what they start included, begins with SIGINT blocked.

    The terminal sends Ctrl-C to workers too, which ignore it once they run: one that is still importing would print a
    traceback.
    """
    if sys.platform == "win32":
        yield
        return
    with _safe_path():
        resource_tracker.ensure_running()  # where it starts, SIGINT is let through again
    with _noted_for_later():
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _noted_for_later() -> Iterator[None]:
    """An interrupt that another thread is given raises here at the end, and not while a process is half started.

    One that has not been sent what it is to run prints a traceback when its parent goes on without it.
    """
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    noted = False

    def note(*_: object) -> None:
        nonlocal noted
        noted = True

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if noted:
            signal.raise_signal(signal.SIGINT)


_PATH_LOCK = threading.Lock()


@contextlib.contextmanager
def _safe_path() -> Iterator[None]:
    """A Python that starts meanwhile imports nothing from the current folder; :func:`enter` takes the setting back."""
    with _PATH_LOCK:
        before = os.environ.get(SAFE_PATH)
        os.environ[SAFE_PATH] = "1" if before is None else before
        try:
            yield
        finally:
            if before is None:
                del os.environ[SAFE_PATH]


def enter(
    safe_path: str | None, scratch: str | None, initializer: Callable[..., None] | None, initargs: tuple[Any, ...]
) -> None:
    """In the worker, first.

    Args:
        safe_path: what the user's environment says to Python about the current folder.
        scratch: where temporary files go; None for where they go by default.
        initializer, initargs: what is called then.
    """
    if safe_path is None:  # what a user's function starts has the user's own setting
        os.environ.pop(SAFE_PATH, None)
    if sys.platform != "win32":
        # A group of its own, so that what it starts is killed with it; and SIGTERM as the system has it, which ends a
        # process that hangs in C at once, where Python's handler would never run.
        os.setpgid(0, 0)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    _die_with_parent()
    if scratch is not None:
        tempfile.tempdir = os.environ["TMPDIR"] = scratch
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


def kill_group(pid: int | None) -> None:
    """End what a worker that is no more has left running."""
    if pid is not None and sys.platform != "win32":
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
