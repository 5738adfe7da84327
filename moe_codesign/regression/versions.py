"""The same suite under several versions of the compilers, each in an environment of its own."""

import hashlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from moe_codesign.compiler.cache import default_folder
from moe_codesign.errors import UserError
from moe_codesign.regression.baseline import Baseline, read_baseline
from moe_codesign.regression.facts import Fact
from moe_codesign.regression.suite import Suite

_REQUIREMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(\[[\w,]+\])?\s*(==|>=|<=|~=|<|>)\s*[\w.*]+")
_STALE = 0.01
"""A tile that is slower than the new best by more than this is stale; the model cannot tell smaller differences."""


def parse_environments(text: str) -> list[tuple[str, ...]]:
    """``triton==3.6.0,jax==0.10.1+libtpu==0.0.51`` to the packages of each environment.

    Raises:
        UserError: something that is no requirement.
    """
    found = [tuple(one.strip() for one in group.split("+")) for group in text.split(",")]
    for requirement in (one for group in found for one in group):
        if not _REQUIREMENT.fullmatch(requirement):
            raise UserError(
                "with", value=requirement, fix="write versions, as in triton==3.6.0,triton==3.7.1 (+ joins packages)"
            )
    return found


def environment_name(requirements: tuple[str, ...]) -> str:
    """``jax 0.10.1, libtpu 0.0.51``."""
    return ", ".join(one.replace("==", " ") for one in requirements)


def make_environment(requirements: tuple[str, ...]) -> Path:
    """A folder with those packages, to stand before this environment's own on the import path; made once.

    Packages alone, without what they require: that is this environment's, so that nothing else differs.

    Raises:
        UserError: pip cannot install them.
    """
    wanted = list(requirements)
    for one in requirements:
        if one.startswith("jax==") and not any(other.startswith("jaxlib==") for other in requirements):
            wanted.append("jaxlib==" + one.removeprefix("jax=="))
    digest = hashlib.sha256(f"{sys.version_info[:2]} {sorted(wanted)}".encode()).hexdigest()[:12]
    folder = default_folder() / "environments" / digest
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        target = Path(scratch) / "packages"
        command = [sys.executable, "-P", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        done = subprocess.run([*command, "--target", str(target), *wanted], capture_output=True, text=True)
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["pip failed"])[-1][:300]
            raise UserError(f"environment {environment_name(requirements)}: {said}", fix="give versions that exist")
        try:
            os.replace(target, folder)
        except OSError:
            if not folder.is_dir():  # else another process was quicker
                raise
    return folder


def observe_with(suite: Suite, requirements: tuple[str, ...], *, jobs: int) -> Baseline:
    """The suite's facts by those versions, from a process that has them.

    Raises:
        UserError: the environment cannot be made, or nothing runs in it; says what it said.
    """
    folder = make_environment(requirements)
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "facts.json"
        paths = [str(folder), os.environ.get("PYTHONPATH", "")]
        done = subprocess.run(
            [sys.executable, "-P", "-m", "moe_codesign.regression.child", str(suite.path), str(out), str(jobs)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)},
            stderr=subprocess.PIPE,
            text=True,
        )
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["no message"])[-1][:300]
            raise UserError(f"{environment_name(requirements)}: {said}")
        return read_baseline(out)


@dataclass(frozen=True)
class StaleTile:
    """A tile that was a problem's best under one version and is not under another."""

    kernel: str
    chip: str
    problem: str
    old_tile: str
    new_tile: str
    loss: float


def stale_tiles(old: Baseline, new: Baseline) -> list[StaleTile]:
    """Problems whose best tile (by the cost model, over each version's own binaries) has changed."""
    found = []
    before = _times(old)
    for (kernel, chip, fact), times in _times(new).items():
        known = before.get((kernel, chip, fact), {})
        if not known or not times:
            continue
        was, best = min(known, key=known.__getitem__), min(times, key=times.__getitem__)
        loss = times.get(was, float("inf")) / times[best] - 1
        if loss > _STALE:
            found.append(StaleTile(kernel, chip, fact.asked, was, best, loss))
    return found


def _times(baseline: Baseline) -> Mapping[tuple[str, str, Fact], dict[str, float]]:
    """By kernel, chip and the fact that holds a problem's modelled time: that time for each tile."""
    found: dict[tuple[str, str, Fact], dict[str, float]] = {}
    for place, facts in baseline.facts.items():
        for fact, value in facts.numbers.items():
            if fact.problem is not None:
                found.setdefault((place.kernel, place.chip, fact), {})[place.tile] = value
    return found
