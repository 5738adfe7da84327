"""The pytest plugin in a project of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = """
import pytest

CASE = dict(
    function="kernels.py:matmul",
    chips=["h100_sxm", "a100_sxm"],
    signature={**dict.fromkeys(("a_ptr", "b_ptr", "c_ptr"), "*bf16:16"), **dict.fromkeys("MNK", "i32:16")},
    tiles=[{"BLOCK_M": 64, "BLOCK_N": 64, "BLOCK_K": 64, "num_warps": 4}],
)


@pytest.mark.kernel_facts(**CASE)
def test_no_spills(kernel_facts):
    assert kernel_facts["status"] == "ok", kernel_facts.reason
    assert kernel_facts["spill_bytes"] == 0
    assert kernel_facts["async_copies"] > 0


@pytest.mark.kernel_facts(**CASE)
def test_against_the_baseline(kernel_facts):
    assert not kernel_facts.regressions("kernels.facts.json")


def test_a_time(benchmark):
    benchmark(sum, range(10))
"""


@pytest.mark.compile
def test_facts_in_a_suite_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "kernels.py").write_text((Path(__file__).parent / "kernels.py").read_text())
    (tmp_path / "test_kernels.py").write_text(TESTS)
    first = _pytest(tmp_path, "--benchmark-json", "times.json", "--kernel-facts-json", "facts.json")
    assert "no baseline " in first.stdout
    assert "kernels.facts.json" in first.stdout
    assert "2 failed, 3 passed" in first.stdout, first.stdout
    beside = json.loads((tmp_path / "times.json").read_text())
    assert len(beside["benchmarks"]) == 1
    alone = json.loads((tmp_path / "facts.json").read_text())
    assert beside["kernel_facts"] == alone
    assert [(one["kernel"], one["chip"]) for one in alone[:2]] == [("matmul", "h100_sxm"), ("matmul", "a100_sxm")]

    kernels = {f"{one['chip']} | {one['tile']}": one["facts"] for one in alone}
    (h100,) = (facts for place, facts in kernels.items() if place.startswith("h100_sxm"))
    h100["registers"] = 10
    (tmp_path / "kernels.facts.json").write_text(json.dumps({"made_with": {}, "kernels": {"matmul": kernels}}))
    done = _pytest(tmp_path)
    assert "1 failed, 4 passed" in done.stdout
    assert "matmul | h100_sxm | BLOCK_K=64 BLOCK_M=64 BLOCK_N=64 num_warps=4: registers 10 -> " in done.stdout


def test_a_wrong_mark_and_a_missing_one_are_reported(tmp_path: Path) -> None:
    mark = "@pytest.mark.kernel_facts(function='kernels.py:matmul', signature={'x': 'i32'})"
    (tmp_path / "test_wrong.py").write_text(f"import pytest\n{mark}\ndef test_x(kernel_facts): pass\n")
    (tmp_path / "test_missing.py").write_text("def test_y(kernel_facts): pass\n")
    done = _pytest(tmp_path, "--continue-on-collection-errors")
    assert "test_wrong.py: kernels.0.chips is missing; add it" in done.stdout
    assert "kernel_facts needs @pytest.mark.kernel_facts" in done.stdout


def _pytest(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    # A run of its own, not a worker of this one: pytest-benchmark times nothing in those.
    outside = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=outside)
