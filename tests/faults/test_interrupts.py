"""Ctrl-C in a terminal, and a polite signal: out within three seconds, nothing left running, the terminal as it was."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from tests.command import invoke
from tests.conftest import space_text
from tests.faults.test_kill import stored

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="terminals")
LIMIT_S = 3.0
_START = """
import fcntl, signal, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
# As a terminal's shell starts it, whoever ignores signals where the tests run (nohup, a job in the background).
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, signal.SIG_DFL)
from moe_codesign.cli import main
main()
"""
HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"


@dataclass
class InTerminal:
    """A command in a terminal of its own."""

    pid: int
    terminal: int
    said: str = ""
    children: set[int] = field(default_factory=set)

    def look(self, wait_s: float = 0.02) -> bool:
        """Read what it prints and note its children; whether it still runs."""
        if select.select([self.terminal], [], [], wait_s)[0]:
            try:
                self.said += os.read(self.terminal, 65536).decode(errors="replace")
            except OSError:  # its end
                return False
        with contextlib.suppress(psutil.Error):
            self.children |= {child.pid for child in psutil.Process(self.pid).children(recursive=True)}
        return True

    def until(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not done():
            assert self.look(), self.said
            assert time.monotonic() < deadline, self.said

    def end(self) -> tuple[int, float]:
        """Its exit code, and how long it took from now."""
        start = time.monotonic()
        while self.look() and time.monotonic() - start < 30:
            pass
        if time.monotonic() - start >= 30:
            os.kill(self.pid, signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status), time.monotonic() - start

    def leaves_nothing(self) -> bool:
        deadline = time.monotonic() + LIMIT_S
        while time.monotonic() < deadline:
            if not any(psutil.pid_exists(pid) and _runs(pid) for pid in self.children):
                return True
            time.sleep(0.05)
        return False


def _runs(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@contextlib.contextmanager
def in_terminal(folder: Path, *arguments: str) -> Iterator[InTerminal]:
    import pty

    root = str(Path(__file__).parents[2])
    (folder / "temporary").mkdir()
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")])),
        "MOE_CODESIGN_CACHE": str(folder / "cache"), "TMPDIR": str(folder / "temporary"), "TERM": "xterm",
    }  # fmt: skip
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", _START, *arguments],
        stdin=slave, stdout=slave, stderr=slave, cwd=folder, env=environment, start_new_session=True,
    )  # fmt: skip
    os.close(slave)
    try:
        yield InTerminal(process.pid, master)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        process.returncode = 0  # it has been waited for
        os.close(master)


def check(command: InTerminal, end: Callable[[], None]) -> None:
    end()
    code, took = command.end()
    assert (code, took < LIMIT_S) == (130, True), f"{took:.1f} s: {command.said}"
    assert "Traceback" not in command.said
    assert command.said.rfind(SHOW) >= command.said.rfind(HIDE), "the cursor is back"
    assert command.leaves_nothing()


def ctrl_c(command: InTerminal) -> Callable[[], None]:
    return lambda: (os.write(command.terminal, b"\x03"), None)[1]


def test_ctrl_c_in_a_search_keeps_it(tmp_path: Path) -> None:
    (tmp_path / "space.toml").write_text(space_text(min_quality_ratio=None))
    search = ("search", "space.toml", "--storage", f"sqlite:///{tmp_path / 's.db'}", "--trials")
    with in_terminal(tmp_path, *search, "2000") as command:
        command.until(lambda: stored(tmp_path) >= 3)
        check(command, ctrl_c(command))
        assert "the same command resumes it" in command.said
    kept = stored(tmp_path)
    assert 3 <= kept < 2000
    assert invoke(*search, str(kept + 5), cwd=tmp_path).returncode == 0
    assert stored(tmp_path) == kept + 5


@pytest.mark.compile
@pytest.mark.parametrize(
    "end", [ctrl_c, lambda command: lambda: os.kill(command.pid, signal.SIGTERM)], ids=["Ctrl-C", "SIGTERM"]
)
def test_a_compile_ends_and_clears_up(end: Callable[[InTerminal], Callable[[], None]], tmp_path: Path) -> None:
    compile_ = ("compile", "--kernel", "triton.grouped_gemm", "--chip", "h100_sxm", "--recompile", "--jobs", "1")
    with in_terminal(tmp_path, *compile_) as command:
        command.until(lambda: "compile" in command.said and bool(list((tmp_path / "temporary").glob("*/*/*"))))
        check(command, end(command))
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.slow
def test_ctrl_c_in_a_measurement_ends_it(tmp_path: Path) -> None:
    with in_terminal(tmp_path, "bench", "--device", "cpu", "--tokens", "8", "--seconds", "60") as command:
        started = time.monotonic()
        command.until(lambda: len(command.children) > 1 and time.monotonic() - started > 8)
        check(command, ctrl_c(command))
