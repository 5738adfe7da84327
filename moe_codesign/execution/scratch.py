"""Folders for temporary files that do not outlive their process for long, however it ends."""

import contextlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

_PREFIX = "moe-codesign-scratch-"
_IN_USE = ".in_use.lock"
_OLD_S = 60.0
"""Age from which a folder that nobody holds was left behind: its lock follows its making within a second."""


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder for temporary files, removed at the end.

    A process that is killed cannot remove its own: the next one that asks for a folder removes those that nobody holds.
    They are told apart by a lock in each, which the system releases with its process, whatever container it is in.
    """
    _remove_left_behind(Path(tempfile.gettempdir()))
    with (
        tempfile.TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True) as name,
        FileLock(Path(name) / _IN_USE),
    ):
        yield Path(name)


def _remove_left_behind(folder: Path) -> None:
    for one in folder.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError, Timeout):  # another user's, one in use, or one that is just being removed
            status = one.lstat()
            mine = not hasattr(os, "getuid") or status.st_uid == os.getuid()
            if not stat.S_ISDIR(status.st_mode) or not mine or time.time() - status.st_mtime < _OLD_S:
                continue
            with FileLock(one / _IN_USE, timeout=0):
                pass
            shutil.rmtree(one, ignore_errors=True)
