"""A notion that matters is written in one file: the others call it."""

import re
from pathlib import Path

import pytest

import moe_codesign

PACKAGE = Path(moe_codesign.__file__).parent


@pytest.mark.parametrize(
    ("pattern", "homes"),
    [
        pytest.param(r"^class _?Table\(", {"tables.py"}, id="strict tables"),
        pytest.param(r"get_close_matches", {"tables.py", "models/catalogue.py"}, id="did you mean"),
        pytest.param(r"\bos\.replace\(", {"files.py", "regression/versions.py"}, id="a file is replaced in one step"),
        pytest.param(r"\bin off\b", set(), id="no ablation is in the product's physics"),
        pytest.param(r"strict=False", set(), id="nothing is put together by position and hope"),
        pytest.param(r"runs Triton kernels|ragged_dot runs on", {"cost/model_for.py"}, id="where a stack runs"),
        pytest.param(r"^Outcome\b.*=", {"domain/trial.py"}, id="an outcome is a trial's"),
        pytest.param(r"^\s*(from|import) (kernels|benchmarks|tests)\b", set(), id="no import of scripts or tests"),
    ],
)
def test_only_its_home_has_it(pattern: str, homes: set[str]) -> None:
    files = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if re.search(pattern, path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert files == homes
