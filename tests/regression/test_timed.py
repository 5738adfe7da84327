"""Timed comparisons of revisions, for real: in repositories made for the test, on this host's CPU."""

import subprocess
from pathlib import Path

import pytest

from tests.command import invoke

CASE = """
import numpy as np
from work import multiply

def case():
    rng = np.random.default_rng(0)
    a = rng.random((256, 256))
    return (lambda: multiply(a)), a @ a, 1e-6
"""
WORK = """
def multiply(a):
    for _ in range(REPEATS):
        result = a @ a
    return result
REPEATS = 20
"""
SUITE = """
[[timed]]
name = "product"
function = "case.py:case"
import_from = ["src"]
"""


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "work.py").write_text(WORK)
    (tmp_path / "case.py").write_text(CASE)
    (tmp_path / "suite.toml").write_text(SUITE)
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    return tmp_path


def regress(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return invoke("regress", "suite.toml", "--seconds", "0.3", *options, cwd=folder)


def test_twice_the_work_is_slower(repository: Path) -> None:
    (repository / "src" / "work.py").write_text(WORK.replace("REPEATS = 20", "REPEATS = 60"))
    done = regress(repository, "--against", "HEAD")
    assert done.returncode == 1, done.stdout
    assert "product | cpu | beside HEAD: slower" in done.stdout


def test_a_wrong_result_is_reported_before_any_time(repository: Path) -> None:
    (repository / "src" / "work.py").write_text(WORK.replace("return result", "return result * 1.01"))
    done = regress(repository, "--against", "HEAD")
    assert done.returncode == 1
    assert "product | cpu | beside HEAD: wrong result: row_error" in done.stdout
    assert "-> 0.0" in done.stdout
    (repository / "src" / "work.py").write_text(WORK.replace("return result", "return result * float('nan')"))
    assert "wrong result: row_error" in regress(repository, "--against", "HEAD").stdout


@pytest.mark.slow
def test_a_module_beside_the_case_is_the_other_revisions(repository: Path) -> None:
    """The case's own folder must not hide what was committed."""
    (repository / "case.py").rename(repository / "src" / "case.py")
    (repository / "suite.toml").write_text(SUITE.replace("case.py", "src/case.py"))
    (repository / "src" / "work.py").write_text(WORK.replace("REPEATS = 20", "REPEATS = 60"))
    assert "slower" in regress(repository, "--against", "HEAD").stdout


@pytest.mark.slow
def test_a_module_that_the_other_revision_lacks_is_not_ours(repository: Path) -> None:
    (repository / "src" / "new.py").write_text(WORK)
    (repository / "case.py").write_text(CASE.replace("from work", "from new"))
    done = regress(repository, "--against", "HEAD")
    assert done.returncode == 0, "ours is not to blame"
    assert "not comparable, the other revision: " in done.stdout


@pytest.mark.slow
def test_a_candidate_that_corrects_a_wrong_revision_passes(repository: Path) -> None:
    (repository / "src" / "work.py").write_text(WORK.replace("return result", "return result + 1"))
    git(repository, "commit", "-qam", "wrong")
    (repository / "src" / "work.py").write_text(WORK)
    done = regress(repository, "--against", "HEAD")
    assert done.returncode == 0
    assert "the other revision's result is wrong" in done.stdout


@pytest.mark.slow
def test_a_crash_is_a_result(repository: Path) -> None:
    (repository / "src" / "work.py").write_text("import os\ndef multiply(a):\n    os.abort()\n")
    done = regress(repository, "--against", "HEAD")
    assert done.returncode == 1
    assert "the process died" in done.stdout


@pytest.mark.slow
def test_an_exception_is_a_result(repository: Path) -> None:
    (repository / "src" / "work.py").write_text("def multiply(a):\n    raise RuntimeError('no')\n")
    done = regress(repository, "--against", "HEAD")
    assert done.returncode == 1
    assert "RuntimeError: no" in done.stdout


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--against", "nothing"), "give a commit, branch or tag"),
        (("--against=--output=stolen"), "give a commit, branch or tag"),
        (("--against", "HEAD", "--update"), "exclude each other"),
        (("--out", "x.md"), "--with or --history"),
        (("--history",), "no stored runs"),
        (("--with", "triton"), "triton==3.6.0"),
        (("--with", "--index-url=x"), "triton==3.6.0"),
    ],
)
def test_wrong_use_is_one_line(repository: Path, options: tuple[str, ...], says: str) -> None:
    done = regress(repository, *([options] if isinstance(options, str) else options))
    assert done.returncode == 2
    assert not (repository / "stolen").exists()
    assert len(done.stderr.strip().splitlines()) == 1
    assert says in done.stderr
