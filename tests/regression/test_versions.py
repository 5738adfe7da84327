"""Version matrices: environments for real, comparisons on facts made for the test."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from moe_codesign.errors import UserError
from moe_codesign.regression.baseline import Baseline, compare_all, read_baseline, write_baseline
from moe_codesign.regression.facts import Fact, Facts, Place
from moe_codesign.regression.run import VersionColumn
from moe_codesign.regression.suite import parse_suite
from moe_codesign.regression.versions import make_environment, parse_environments, stale_tiles
from moe_codesign.reports.markdown import matrix_markdown

SUITE = parse_suite(
    {"kernels": [{"name": "k", "function": "a.py:f", "chips": ["h100_sxm"], "signature": {"x": "i32"}}]},
    Path("suite.toml"),
)


def facts(spill: int, small: float, large: float) -> Baseline:
    def row(latency_us: float) -> Facts:
        return Facts("ok", {Fact("spill_bytes"): spill, Fact("latency_us", "P"): latency_us})

    places = {"small": row(small), "large": row(large)}
    return Baseline({"triton": "triton 1"}, {Place("k", "h100_sxm", tile): facts for tile, facts in places.items()})


def test_environments_are_read() -> None:
    assert parse_environments("triton==3.6.0, jax==0.10.1+libtpu==0.0.51") == [
        ("triton==3.6.0",),
        ("jax==0.10.1", "libtpu==0.0.51"),
    ]


def test_a_tile_that_is_no_longer_the_best() -> None:
    old, new = facts(0, 10.0, 12.0), facts(0, 10.0, 8.0)
    (stale,) = stale_tiles(old, new)
    assert (stale.old_tile, stale.new_tile) == ("small", "large")
    assert stale.loss == pytest.approx(0.25)
    assert stale_tiles(old, old) == []
    assert stale_tiles(old, facts(0, 10.0, 9.95)) == [], "within a percent the model does not tell"


def test_the_page_says_what_moved() -> None:
    old, new = facts(0, 10.0, 12.0), facts(8, 10.0, 8.0)
    columns = [
        VersionColumn("one", old, compare_all(SUITE, old, old), []),
        VersionColumn("two", new, compare_all(SUITE, old, new), stale_tiles(old, new)),
    ]
    page = matrix_markdown("suite", columns)
    assert "| h100_sxm | 2 compiled | 2 compiled; 2 worse, 1 better, 0 moved |" in page
    assert "| k | h100_sxm | small | spill_bytes | 0 | 8 |" in page
    assert "| k | h100_sxm | P | small | large | 25.0% |" in page


def test_facts_survive_their_file(tmp_path: Path) -> None:
    found = facts(0, 10.0, 12.5)
    found.facts[Place("k", "h100_sxm")] = Facts("refused", reason="too large")
    write_baseline(tmp_path / "x.facts.json", found)
    assert read_baseline(tmp_path / "x.facts.json") == found


def test_an_environment_has_its_version_and_the_rest_of_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOE_CODESIGN_CACHE", str(tmp_path))
    try:
        folder = make_environment(("filelock==3.16.1",))
    except UserError as error:
        if "filelock" in str(error) and "connection" not in str(error).lower():
            raise
        pytest.skip(f"no package index: {error}")
    script = "import filelock, numpy, importlib.metadata as m; print(filelock.__file__, m.version('filelock'))"
    done = subprocess.run(
        [sys.executable, "-c", script], env={"PYTHONPATH": str(folder)}, capture_output=True, text=True, check=True
    )
    file, version = done.stdout.split()
    assert Path(file).is_relative_to(tmp_path)
    assert version == "3.16.1"
    assert make_environment(("filelock==3.16.1",)) == folder, "made once"
    with pytest.raises(UserError, match="give versions that exist"):
        make_environment(("filelock==0.0.0.1",))


def test_the_command_makes_a_table(tmp_path: Path) -> None:
    (tmp_path / "kernels.py").write_text((Path(__file__).parent / "kernels.py").read_text())
    (tmp_path / "suite.toml").write_text(
        """
[[kernels]]
name = "product"
function = "kernels.py:matmul"
chips = ["h100_sxm"]
signature = { a_ptr = "*bf16:16", b_ptr = "*bf16:16", c_ptr = "*bf16:16", M = "i32:16", N = "i32:16", K = "i32:16" }
tiles = [{ BLOCK_M = 64, BLOCK_N = 64, BLOCK_K = 64 }]
"""
    )
    command = ["regress", "suite.toml", "--with", "filelock==3.16.1,filelock==3.17.0", "--out", "page.md", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "moe_codesign.cli", *command], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    if done.returncode == 2 and "filelock" not in done.stderr:
        pytest.skip(f"no package index: {done.stderr}")
    assert done.returncode == 0, done.stderr
    first, second = json.loads(done.stdout)
    assert (first["version"], second["version"]) == ("filelock 3.16.1", "filelock 3.17.0")
    assert second["comparison"]["findings"] == [], "another version of something else moves nothing"
    assert "Nothing moved." in (tmp_path / "page.md").read_text()
