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
import numpy.typing as npt

from moe_codesign.compiler.function import load_function

_run: Callable[[], Any] | None = None


def enter(folders: list[str], device: str) -> None:
    """Put the folders first, and forget what was imported from elsewhere under their names."""
    if device == "cpu":
        os.environ["JAX_PLATFORMS"] = "cpu"
    sys.path[:0] = folders
    own = {path.stem for folder in folders for path in Path(folder).iterdir()}
    for name in [name for name in sys.modules if name.partition(".")[0] in own]:
        del sys.modules[name]


def prepare(function: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], float]:
    """Build the case and run it once: (result, expected, tolerance)."""
    global _run
    _run, expected, tolerance = load_function(function)()
    return result(), np.asarray(expected, dtype=np.float64), float(tolerance)


def result() -> npt.NDArray[np.float64]:
    """What one run gives."""
    assert _run is not None
    return np.asarray(_run(), dtype=np.float64)


def sample(times: int) -> float:
    """us a run, over so many."""
    assert _run is not None
    start = time.perf_counter()
    for _ in range(times):
        _run()
    return (time.perf_counter() - start) * 1e6 / times
