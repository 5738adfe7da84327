"""Version matrices: environments for real, comparisons on facts made for the test."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from moe_codesign.errors import UserError
from moe_codesign.regression.baseline import Baseline, read_baseline, write_baseline
from moe_codesign.regression.facts import Fact, Facts, Place
from moe_codesign.regression.versions import make_environment, parse_environments, stale_tiles
from tests.command import invoke


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


def test_facts_survive_their_file(tmp_path: Path) -> None:
    found = facts(0, 10.0, 12.5)
    found.facts[Place("k", "h100_sxm")] = Facts("refused", reason="too large")
    write_baseline(tmp_path / "x.facts.json", found)
    assert read_baseline(tmp_path / "x.facts.json") == found


def wheel(folder: Path, name: str, version: str) -> None:
    """A package of one module, as pip installs it."""
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as file:
        file.writestr(f"{name}.py", "")
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        file.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{info}/RECORD", "")


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which pip finds packages; it asks no index. Environments are made beside it."""
    folder = tmp_path / "packages"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("MOE_CODESIGN_CACHE", str(tmp_path / "cache"))
    return folder


def test_an_environment_has_its_version_and_the_rest_of_this_one(packages: Path) -> None:
    wheel(packages, "iniconfig", "9.1")
    folder = make_environment(("iniconfig==9.1",))
    script = "import iniconfig, numpy, importlib.metadata as m; print(iniconfig.__file__, m.version('iniconfig'))"
    done = subprocess.run(
        [sys.executable, "-c", script], env={"PYTHONPATH": str(folder)}, capture_output=True, text=True, check=True
    )
    file, version = done.stdout.split()
    assert Path(file).is_relative_to(packages.parent)
    assert version == "9.1"
    assert make_environment(("iniconfig==9.1",)) == folder, "made once"
    with pytest.raises(UserError, match="give versions that exist"):
        make_environment(("iniconfig==9.2",))


@pytest.mark.compile
def test_the_command_makes_a_table(packages: Path, tmp_path: Path) -> None:
    for version in ("9.1", "9.2"):
        wheel(packages, "iniconfig", version)
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
    arguments = ("suite.toml", "--with", "iniconfig==9.1,iniconfig==9.2", "--out", "page.md", "--json")
    done = invoke("regress", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    first, second = json.loads(done.stdout)
    assert (first["version"], second["version"]) == ("iniconfig 9.1", "iniconfig 9.2")
    assert second["comparison"]["findings"] == [], "another version of something else moves nothing"
    assert "Nothing moved." in (tmp_path / "page.md").read_text()
