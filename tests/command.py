"""The command line in tests: in this process, or in one of its own as users start it.

A test takes a process where a process is what it tests: a signal, an exit code, what an import brings with it.
"""

import contextlib
import io
import subprocess
import sys
from pathlib import Path


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run ``moe-codesign`` in a process of its own."""
    command = [sys.executable, "-m", "moe_codesign.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


def invoke(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run ``moe-codesign`` in this process; what it prints and its exit code are those of a process."""
    from moe_codesign.cli import main

    out, error = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(cwd or Path.cwd()),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(error),
    ):
        try:
            main(list(arguments))
        except SystemExit as ended:
            code = ended.code
    assert isinstance(code, int)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), error.getvalue())
