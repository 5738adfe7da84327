"""Functions that treat their process badly. Importable by name, as workers need them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

_calls = 0


def half(number: int) -> float:
    return number / 2


def count_calls() -> int:
    global _calls
    _calls += 1
    return _calls


def pid(_: object = None) -> int:
    return os.getpid()


def hang_for_ever(_: object = None) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(60)


def leave(code: int) -> NoReturn:
    os._exit(code)


def kill(number: int) -> None:
    os.kill(os.getpid(), number)


def system_exit(_: object = None) -> NoReturn:
    sys.exit(3)


def raise_timeout(_: object = None) -> NoReturn:
    raise TimeoutError("the function's own")


def misbehave(way: str) -> Any:
    ways: dict[str, Callable[[], Any]] = {
        "hang": hang_for_ever,
        "exit": lambda: leave(0),
        "raise": system_exit,
        "good": lambda: "good",
    }
    return ways[way]()


class NeedsTwoError(Exception):
    """Pickles, and fails where it is unpickled."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(first)


def raise_bad_pickle(_: object = None) -> NoReturn:
    raise NeedsTwoError("first line\nsecond line", "more")


class _NotBack:
    def __reduce__(self) -> Any:
        return _fail_in_parent, (os.getpid(),)


def _fail_in_parent(made_by: int) -> None:
    if os.getpid() != made_by:
        raise RuntimeError("not here")


def result_that_cannot_be_read(_: object = None) -> Any:
    return _NotBack()


def result_that_cannot_be_written(_: object = None) -> Any:
    return lambda: None


class FailsInWorker:
    def __init__(self) -> None:
        self.made_by = os.getpid()

    def __reduce__(self) -> Any:
        return _fail_in_parent, (self.made_by,)


def start_a_child_and_hang(file: str) -> NoReturn:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(file).write_text(f"{os.getpid()} {child.pid}")
    hang_for_ever()


def start_a_child_and_crash(file: str) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(file).write_text(f"{os.getpid()} {child.pid}")
    os.abort()


def enter(code: str) -> None:
    global _calls
    if code == "fail":
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123 - a worker that is about to end
        raise ValueError("no")
    _calls = 40


def end(way: tuple[str, int]) -> int:
    """End this process in one of three ways, or answer with the number."""
    kind, number = way
    if kind == "exit":
        os._exit(3)
    if kind in ("SIGKILL", "SIGSEGV"):
        os.kill(os.getpid(), getattr(signal, kind))
    return number


def visible_devices(_: object = None) -> str:
    time.sleep(1)  # so that one worker cannot answer for both
    return os.environ.get("CUDA_VISIBLE_DEVICES", "")


def note_and_wait(item: tuple[str, int]) -> int:
    folder, number = item
    with (Path(folder) / str(number)).open("a") as file:
        file.write(f"{os.getpid()} ")
    time.sleep(0.5)
    return number


def leave_at_start() -> NoReturn:
    os._exit(0)
