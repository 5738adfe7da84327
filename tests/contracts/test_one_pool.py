"""Child processes with a time limit, and what their exceptions say, are one module's matter each."""

import re
from pathlib import Path

import pytest

import moe_codesign

PACKAGE = Path(moe_codesign.__file__).parent


@pytest.mark.parametrize(
    ("pattern", "home"),
    [
        (r"\bpebble\b|\bProcessPool|\bProcessExpired|\bFutureTimeout", "execution/pool.py"),
        (r"splitlines\(\)\[0\]", "errors.py"),
        (r"^(F64|Mask)\s*=", "arrays.py"),
    ],
)
def test_one_file_alone(pattern: str, home: str) -> None:
    files = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if re.search(pattern, path.read_text(), re.MULTILINE)
    }
    assert files == {home}
