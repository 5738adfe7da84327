"""A user's file that ends its process, with an exit code that says all is well, is a failure and reported as one."""

from pathlib import Path

import pytest

from tests.command import invoke

SUITE = """
[[kernels]]
function = "{file}:kernel"
chips = ["h100_sxm"]
signature = {{ x = "*bf16" }}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MOE_CODESIGN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "leaves.py").write_text("import sys\nsys.exit(0)\n")
    (tmp_path / "quits.py").write_text("import os\nos._exit(0)\n")
    return tmp_path


@pytest.mark.compile
@pytest.mark.parametrize(("module", "says"), [("leaves", "SystemExit: 0"), ("quits", "exit code 0")])
def test_a_suite_whose_file_leaves_is_no_success(module: str, says: str, folder: Path) -> None:
    suite = folder / "suite.toml"
    suite.write_text(SUITE.format(file=f"{module}.py"))
    storage = ("--storage", f"sqlite:///{folder / 's.db'}")
    updated = invoke("regress", str(suite), "--update", *storage)
    assert updated.returncode != 0
    assert says in updated.stderr
    facts = folder / "suite.facts.json"
    assert not facts.exists(), "no baseline of a kernel that was not there"
    facts.write_text(
        '{"made_with": {}, "kernels": {"kernel": {"h100_sxm": {"status": "ok", "registers": 10, "spill_bytes": 0}}}}'
    )
    checked = invoke("regress", str(suite), *storage)
    assert checked.returncode == 1
    assert "kernel" in checked.stdout
    assert not list((folder / "cache").rglob("*.json")), "it may be there a moment later"


@pytest.mark.compile
@pytest.mark.parametrize("module", ["leaves", "quits"])
def test_a_function_whose_module_leaves_is_no_success(module: str, folder: Path) -> None:
    arguments = ("--arguments", "bf16[8,128]", "--chip", "tpu_v6e")
    done = invoke("compile", "--function", f"{module}:f", *arguments, cwd=folder)
    assert done.returncode != 0
    assert (done.stdout + done.stderr).strip()
    assert not list((folder / "cache").rglob("*.json"))
