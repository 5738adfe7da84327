"""No candidate of `regress --against` is called faster for work that it leaves out; see tests/regression/cheats.py.

Both sides run in this process, each with a module of its own; a few candidates run in processes as users' do.
"""

import contextlib
import importlib.util
import sys
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moe_codesign.arrays import F64
from moe_codesign.measure import verification
from moe_codesign.measure.verification import WrongResultError
from moe_codesign.regression import race, side
from moe_codesign.regression.race import NoTimeError, Race
from tests.regression import cheats
from tests.regression.test_timed import SUITE, git, regress


def a_side(name: str, text: str) -> Callable[..., Any]:
    """Calls into a copy of the module of a side, whose ``work`` is this text."""
    spec = importlib.util.spec_from_file_location(f"side_{name}", side.__file__)
    assert spec is not None
    assert spec.loader is not None
    own = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(own)
    work = types.ModuleType("work")
    exec(text, work.__dict__)  # noqa: S102 - a text of this test's

    def call(function: Callable[..., Any], *arguments: Any) -> Any:
        sys.modules["work"] = work
        try:
            return getattr(own, function.__name__)(*arguments)
        except WrongResultError as wrong:
            raise race._SideError(f"wrong result: {wrong}") from None

    return call


@contextlib.contextmanager
def as_it_was() -> Iterator[None]:
    modules, clocks, path = set(sys.modules), dict(vars(time)), list(sys.path)
    clock = verification.clock
    try:
        yield
    finally:
        vars(time).update(clocks)
        verification.clock = clock
        sys.path[:] = path
        for name in set(sys.modules) - modules:
            if name == "work" or name.startswith("moe_codesign_user"):
                del sys.modules[name]


def block(folder: Path, text: str, **kind: bool) -> F64:
    """The log ratios of one block, the candidate beside the honest one."""
    (folder / "case.py").write_text(cheats.case(**kind))
    with as_it_was():
        one = Race(f"{folder / 'case.py'}:case", 0.05, time.perf_counter() + 60)
        return one.block(a_side("ours", text), a_side("theirs", cheats.HONEST))


KINDS = pytest.mark.parametrize(
    "kind", [{}, {"seeded": False, "eager": True}], ids=["a case with a seed", "a case without"]
)


@KINDS
def test_the_honest_candidate_is_timed(kind: dict[str, bool], tmp_path: Path) -> None:
    ratios = block(tmp_path, cheats.HONEST, **kind)
    assert len(ratios) >= 2, "few on a busy machine"
    assert np.isfinite(ratios).all()


@KINDS
@pytest.mark.parametrize("cheat", cheats.WRONG)
def test_a_wrong_candidate_has_no_time(cheat: str, kind: dict[str, bool], tmp_path: Path) -> None:
    with pytest.raises(NoTimeError, match=r"wrong result|remembers its result") as refused:
        block(tmp_path, cheats.candidate(cheats.WRONG[cheat]), **kind)
    assert refused.value.comparable


@KINDS
@pytest.mark.parametrize("cheat", cheats.SLOW)
def test_hidden_work_is_seen(cheat: str, kind: dict[str, bool], tmp_path: Path) -> None:
    refused = ""
    ratios = np.array([np.nan])
    try:
        ratios = block(tmp_path, cheats.candidate(cheats.SLOW[cheat]), **kind)
    except NoTimeError as problem:
        refused = str(problem)
    assert "remembers its result" in refused or "wrong result" in refused or np.median(ratios) > np.log(2)


@pytest.mark.parametrize("cheat", cheats.UNCHANGED)
def test_the_candidate_is_judged_by_the_other_revision(cheat: str, tmp_path: Path) -> None:
    old, new, body = cheats.UNCHANGED[cheat]
    text = cheats.candidate(body)
    assert old in text
    with pytest.raises(NoTimeError, match=r"wrong result|expect different results") as refused:
        block(tmp_path, text.replace(old, new))
    assert refused.value.comparable


def test_a_clock_that_stands_still_in_the_child_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever way code under test finds to the clock: the parent has one of its own."""
    slow = cheats.candidate("time.sleep(0.004)\n        return work(x, w, expert)")
    (tmp_path / "case.py").write_text(cheats.case())
    ours, theirs = a_side("ours", slow), a_side("theirs", cheats.HONEST)

    def lying(function: Callable[..., Any], *arguments: Any) -> Any:
        answer = ours(function, *arguments)
        return [us / 20 for us in answer] if function is side.sample else answer

    with as_it_was(), pytest.raises(NoTimeError, match="its clock is wrong"):
        Race(f"{tmp_path / 'case.py'}:case", 0.3, time.perf_counter() + 60).block(lying, theirs)


def test_every_run_that_is_timed_has_operands_of_its_own(tmp_path: Path) -> None:
    seen: list[list[int]] = []
    (tmp_path / "case.py").write_text(cheats.case())
    ours, theirs = a_side("ours", cheats.HONEST), a_side("theirs", cheats.HONEST)

    def watched(function: Callable[..., Any], *arguments: Any) -> Any:
        if function is side.build:
            seen.append(arguments[1])
        return ours(function, *arguments)

    with as_it_was():
        Race(f"{tmp_path / 'case.py'}:case", 0.02, time.perf_counter() + 60).block(watched, theirs)
    seeds = [seed for one in seen for seed in one]
    assert len(set(seeds)) == len(seeds) >= 2 + 2 + 2 + 2


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "work.py").write_text(cheats.HONEST)
    (tmp_path / "case.py").write_text(cheats.case(seeded=False, eager=True))
    (tmp_path / "suite.toml").write_text(SUITE)
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    return tmp_path


REAL = ["cached result", "patched timer"]


@pytest.mark.parametrize(
    "cheat",
    [
        *REAL,
        *(pytest.param(name, marks=pytest.mark.slow) for name in (cheats.WRONG | cheats.SLOW) if name not in REAL),
    ],
)
def test_the_command_fails(cheat: str, repository: Path) -> None:
    (repository / "src" / "work.py").write_text(cheats.candidate((cheats.WRONG | cheats.SLOW)[cheat]))
    done = regress(repository, "--against", "HEAD")
    assert done.returncode == 1, done.stdout
    assert any(word in done.stdout for word in ("wrong result", "remembers its result", "slower"))


def test_operands_that_never_change_make_nothing_faster(repository: Path) -> None:
    fixed = cheats.case().replace("rng = np.random.default_rng(seed)", "rng = np.random.Generator(np.random.PCG64(0))")
    (repository / "case.py").write_text(fixed)
    slow = cheats.candidate("time.sleep(0.002)\n        return work(x, w, expert)")
    (repository / "src" / "work.py").write_text(slow)
    git(repository, "commit", "-qam", "slow")
    (repository / "src" / "work.py").write_text(cheats.HONEST)
    done = regress(repository, "--against", "HEAD")
    assert "unclear" in done.stdout
    assert "let the case take a seed" in done.stdout
    assert regress(repository, "--against", "HEAD", "--strict").returncode == 1


def test_a_ratio_of_a_thousand_ends_soon(repository: Path) -> None:
    (repository / "src" / "work.py").write_text(cheats.candidate("time.sleep(0.2)\n        return work(x, w, expert)"))
    start = time.monotonic()
    done = regress(repository, "--against", "HEAD")
    assert time.monotonic() - start < 60
    assert "slower" in done.stdout
