"""One side of a timed comparison: a child process with one revision's folders first on its import path.

Nothing here imports a kernel, so that the first import of one comes from those folders.
"""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from moe_codesign.arrays import F64
from moe_codesign.compiler.function import load_file

_run: Callable[[], Any] | None = None
_not_from: list[Path] = []


def enter(folders: list[str], not_from: list[str], device: str) -> None:
    """Put the folders first, and forget what was imported from elsewhere under their names.

    ``not_from``: the other side's folders; a module from there would compare a revision with itself.
    """
    _not_from[:] = [Path(folder) for folder in not_from]
    if device == "cpu":
        os.environ["JAX_PLATFORMS"] = "cpu"
    sys.path[:0] = folders
    own = {path.stem for folder in folders for path in Path(folder).iterdir()}
    for name in [name for name in sys.modules if name.partition(".")[0] in own]:
        del sys.modules[name]


def prepare(function: str) -> tuple[F64, F64, float]:
    """Build the case and run it once: (result, expected, tolerance)."""
    global _run
    place, _, name = function.rpartition(":")
    # Last: the case's own folder may be the other side's.
    sys.path.append(str(Path(place).parent))
    _run, expected, tolerance = getattr(load_file(Path(place)), name)()
    found = result()
    for module in list(sys.modules.values()):
        file = Path(getattr(module, "__file__", None) or "")
        if file != Path(place) and any(file.is_relative_to(folder) for folder in _not_from):
            raise ImportError(f"{module.__name__} comes from {file}, which is the other side's")
    return found, np.asarray(expected, dtype=np.float64), float(tolerance)


def result() -> F64:
    """What one run gives."""
    assert _run is not None
    return np.asarray(_run(), dtype=np.float64)


def sample(times: int) -> float:
    """Microseconds of one run, the mean of ``times`` runs."""
    assert _run is not None
    start = time.perf_counter()
    for _ in range(times):
        _run()
    return (time.perf_counter() - start) * 1e6 / times
