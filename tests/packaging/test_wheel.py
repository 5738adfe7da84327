"""The wheel, in an empty environment without compilers: what a new user installs must answer."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMPILERS = ("torch", "triton", "jax", "jaxlib", "libtpu", "scipy", "catboost")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def _pythons() -> list[str]:
    """This interpreter, and the newest other one of 3.12 and later that runs here."""
    candidates = [Path(found) for n in range(19, 11, -1) if (found := shutil.which(f"python3.{n}"))]
    candidates += sorted(Path.home().glob(".pyenv/versions/3.*/bin/python3"), key=lambda p: _number(p), reverse=True)
    for candidate in candidates:
        done = subprocess.run(
            [candidate, "-c", "import sys; print(*sys.version_info[:2])"], capture_output=True, text=True, check=False
        )
        if done.returncode == 0 and (3, 12) <= tuple(map(int, done.stdout.split())) != sys.version_info[:2]:
            return [sys.executable, str(candidate)]
    return [sys.executable]


def _number(path: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in path.parents[1].name.split(".") if part.isdigit())


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    # A copy: a build leaves folders behind, whose files would come into the next wheel.
    for name in ("moe_codesign", "kernels", "search_spaces"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", folder, source], check=True)
    (found,) = folder.glob("*.whl")
    return found


def test_the_wheel_is_small(wheel: Path) -> None:
    assert wheel.stat().st_size < 15e6


@pytest.mark.parametrize("python", _pythons(), ids=lambda python: Path(python).name)
def test_a_light_install_answers(wheel: Path, python: str, tmp_path: Path) -> None:
    subprocess.run([python, "-m", "venv", tmp_path / "env"], check=True)
    binaries = tmp_path / "env" / ("Scripts" if os.name == "nt" else "bin")
    install = [str(binaries / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, "-c", ROOT / "constraints.txt", wheel], check=True)
    work = tmp_path / "work"
    work.mkdir()
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MOE_CODESIGN"))}
    environment = {**clean, "XDG_CACHE_HOME": str(tmp_path / "cache"), "HOME": str(tmp_path)}

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [binaries / "moe-codesign", *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=work,
            env=environment,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    absent = f"import importlib.util as u; print([m for m in {COMPILERS} if u.find_spec(m)])"
    done = subprocess.run([binaries / "python", "-c", absent], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

    for what in ("chips", "models", "kernels"):
        assert json.loads(run("list", what, "--json"))
    assert "quickstart" in [row["space"] for row in json.loads(run("list", "spaces", "--json"))]
    assert json.loads(run("model", "Llama-3.1-70B", "--json"))["whole"]["num_layers"] == 80
    rows = json.loads(run("audit", "Qwen3-30B-A3B", "--chips", "h100_sxm,tpu_v6e,trainium2", "--json"))
    grades = {row["chip"]: row["estimate"]["timing"]["grade"] for row in rows}
    assert grades == {"h100_sxm": "modelled", "tpu_v6e": "simulated", "trainium2": "datasheet"}
    found = json.loads(run("search", "quickstart", "--trials", "8", "--json"))
    assert found["trials"] == 8
    assert found["pairs"]
    assert (work / "results/runs/quickstart/report.html").stat().st_size > 1e6
    assert "trials" in run("report", "quickstart", "--json")
