"""One side of a timed comparison: a child process with one revision's folders first on its import path.

Nothing here imports a kernel, so that the first import of one comes from those folders; and everything that times and
checks is there before.

A case is made anew for each run that counts, of a seed that nobody can foresee: ``case(seed)`` returns (run, expected,
tolerance). What it expects is dropped before its ``run`` is called.
"""

import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from moe_codesign.arrays import F64
from moe_codesign.compiler.function import load_file
from moe_codesign.measure.verification import hold_cuda, timed
from moe_codesign.regression.other_numbers import other_numbers

Case = Callable[..., tuple[Callable[[], Any], Any, float]]

_runs: list[Callable[[], Any]] = []
_results: list[F64] = []
_cases: dict[str, Case] = {}
_not_from: list[Path] = []


def enter(folders: list[str], not_from: list[str], device: str) -> None:
    """Put the folders first, and forget what was imported from elsewhere under their names.

    ``not_from``: the other side's folders; a module from there would compare a revision with itself.
    """
    _not_from[:] = [Path(folder) for folder in not_from]
    if device == "cpu":
        os.environ["JAX_PLATFORMS"] = "cpu"
    if device == "cuda":
        hold_cuda()
    sys.path[:0] = folders
    own = {path.stem for folder in folders for path in Path(folder).iterdir()}
    for name in [name for name in sys.modules if name.partition(".")[0] in own]:
        del sys.modules[name]


def build(function: str, seeds: list[int]) -> None:
    """Make the case with each seed, ready to run once."""
    _results.clear()
    _runs[:] = [_made(function, seed)[0] for seed in seeds]
    for module in list(sys.modules.values()):
        file = Path(getattr(module, "__file__", None) or "")
        if file != Path(function.rpartition(":")[0]) and any(file.is_relative_to(folder) for folder in _not_from):
            raise ImportError(f"{module.__name__} comes from {file}, which is the other side's")


def sample() -> list[float]:
    """Run what was built: microseconds of each. Their results are kept."""
    measured = [timed(run) for run in _runs]
    _results[:] = [result for _, result in measured]
    return [us for us, _ in measured]


def result(index: int) -> F64:
    """What one run of the last sample gave, as it was when its clock stopped."""
    return _results[index]


def reference(function: str, seed: int) -> tuple[F64, float]:
    """What the case of a seed expects, and its tolerance. It is made again, and no kernel has had its operands."""
    _, expected, tolerance = _made(function, seed)
    return np.array(expected() if callable(expected) else expected, dtype=np.float64), float(tolerance)


def _made(function: str, seed: int) -> tuple[Callable[[], Any], Any, float]:
    place, _, name = function.rpartition(":")
    if function not in _cases:
        # Last: the case's own folder may be the other side's.
        sys.path.append(str(Path(place).parent))
        _cases[function] = getattr(load_file(Path(place)), name)
    case = _cases[function]
    if inspect.signature(case).parameters:
        return case(seed)
    with other_numbers(seed):
        return case()
