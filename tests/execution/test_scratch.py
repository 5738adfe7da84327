"""What a killed process leaves in the folder for temporary files is removed by the next one."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from moe_codesign.execution.scratch import scratch_folder

_HOLD = """
import time
from moe_codesign.execution.scratch import scratch_folder
with scratch_folder() as folder:
    (folder / "big").write_text("x")
    print(folder, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def holders(temporary: Path) -> Iterator[list[tuple[subprocess.Popen[str], Path]]]:
    """Two processes that hold a folder each, which looks old."""
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": path}
    command = [sys.executable, "-P", "-c", _HOLD]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(2)]
    found = []
    for process in started:
        assert process.stdout is not None
        found.append((process, Path(process.stdout.readline().strip())))
    for _, folder in found:
        os.utime(folder, (0, 0))
    yield found
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_what_a_killed_process_left_is_removed_and_what_a_living_one_holds_is_not(
    temporary: Path, holders: list[tuple[subprocess.Popen[str], Path]]
) -> None:
    (killed, left), (_, held) = holders
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert (left / "big").exists()
    outside = temporary / "precious"
    outside.mkdir()
    (temporary / f"{left.name}-link").symlink_to(outside)
    with scratch_folder() as own:
        assert {one.name for one in temporary.iterdir() if one.is_dir() and not one.is_symlink()} == {
            own.name, held.name, "precious",
        }  # fmt: skip
        os.utime(own, (0, 0))
        with scratch_folder():
            assert own.exists(), "this process's other folder"
    assert not own.exists()
    assert (held / "big").exists()


def test_a_folder_that_was_just_made_is_left_alone(temporary: Path) -> None:
    fresh = temporary / "moe-codesign-scratch-fresh"
    fresh.mkdir()
    with scratch_folder():
        assert fresh.exists(), "its owner is about to lock it"
