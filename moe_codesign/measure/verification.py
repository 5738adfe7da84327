"""What makes a time count: the work was finished when the clock stopped, and its result is right.

`bench`, the measured search and `regress --against` hold every kernel to this module. It is imported before any code
under test, and keeps the clock and the functions that it rests on: code that replaces ``time.perf_counter`` or
``numpy.asarray`` afterwards changes nothing here.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from moe_codesign.arrays import F64
from moe_kernels.reference import LAYER_RMS, LAYER_TOLERANCE, relative_errors

clock: Callable[[], float] = time.perf_counter
"""Seconds. The clock of every measurement on the host."""

_asarray, _array, _isfinite = np.asarray, np.array, np.isfinite
_modules = sys.modules
_PLAIN = (int, float, bool, complex, type(None))
_EXACT_RMS = 1e-6
"""Errors that are smaller than this in the root mean square are no 16-bit arithmetic: products of 16-bit operands are
rounded to 2**-9.3 or 2**-12.3 on their way. Such a result was taken from the reference."""
_FLOAT32_TINY = float(np.finfo(np.float32).tiny)
_cuda_synchronize: Callable[[], None] | None = None


class WrongResultError(Exception):
    """A result that does not count; the text says why.

    Args:
        text: why.
        error: the largest error of an element; NaN where it has none.
    """

    def __init__(self, text: str, error: float = float("nan")) -> None:
        super().__init__(text, error)
        self.text, self.error = text, error

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Tolerance:
    """How far a result may be off; every error is relative to the root mean square of its row of the reference.

    Args:
        largest: bound on the error of any element.
        rms: bound on the root mean square of all errors; None: no such bound. It finds what loses precision a little
            everywhere, as an accumulator of 16 bits.
        inexact: whether the result must differ from the reference, as everything does that rounds on its way.
    """

    largest: float
    rms: float | None = None
    inexact: bool = False

    @classmethod
    def of_layer(cls, dtype: str) -> "Tolerance":
        """For the expert half of a layer in one data type."""
        return cls(LAYER_TOLERANCE[dtype], LAYER_RMS[dtype], inexact=True)


def check(found: F64, expected: F64, tolerance: Tolerance) -> float:
    """The largest error of any element, all of them looked at.

    Args:
        found: the result, of any shape; its last axis is a row.
        expected: the reference in float64, of the same shape.
        tolerance: what is allowed.

    Raises:
        WrongResultError: another shape; an error beyond the tolerance, or NaN; a denormal number where the reference
            has an ordinary one; or the reference itself.
    """
    if found.shape != expected.shape:
        raise WrongResultError(f"shape {found.shape}, expected {expected.shape}")
    if not found.size:
        return 0.0
    rows = expected.reshape(-1, expected.shape[-1]) if expected.ndim else expected.reshape(1, 1)
    errors = relative_errors(found.reshape(rows.shape), rows)
    worst = float(errors.max())
    if not worst <= tolerance.largest:
        raise WrongResultError(f"row error {worst:.3g}", worst)
    size = np.abs(found)
    if bool(np.any((size > 0) & (size < _FLOAT32_TINY) & (np.abs(expected) > 1e-30))):
        raise WrongResultError("a denormal number where the reference has none", worst)
    mean = float(np.sqrt(np.mean(np.square(errors))))
    if tolerance.rms is not None and not mean <= tolerance.rms:
        raise WrongResultError(f"errors of {mean:.3g} in the root mean square, where {tolerance.rms:g} are allowed")
    if tolerance.inexact and mean < _EXACT_RMS and bool(np.any(expected)):
        raise WrongResultError("the reference itself, to the last digit: no kernel of this data type computes it")
    return worst


def finished(result: Any) -> Any:
    """The result once its numbers are there. Belongs before the clock stops.

    Arrays of JAX are waited for, and on a GPU the whole device, all its streams. What is not known to hold
    its numbers, such as a tensor of a class of its own that computes when it is looked at, is turned into an array.

    Raises:
        WrongResultError: there is no result.
    """
    if result is None:
        raise WrongResultError("no result")
    if _cuda_synchronize is not None:
        _cuda_synchronize()
    return _finished(result)


def _finished(result: Any) -> Any:
    kind = type(result)
    if kind in _PLAIN or (kind is np.ndarray and result.dtype.kind in "biufcV"):
        return result
    if kind is tuple or kind is list:
        return [_finished(one) for one in result]
    torch = _modules.get("torch")
    if torch is not None and kind is torch.Tensor:
        return result
    jax = _modules.get("jax")
    if jax is not None and kind is jax._src.array.ArrayImpl:
        return jax._src.array.ArrayImpl.block_until_ready(result)
    return _asarray(result, dtype=np.float64)


def hold_cuda() -> None:
    """From now on :func:`finished` waits for all streams of the current CUDA device. Call it before code under test."""
    global _cuda_synchronize
    import torch

    _cuda_synchronize = torch.cuda.synchronize


def copied(result: Any) -> F64:
    """A copy in float64, made now: what another thread or stream writes into the result later is not in it."""
    torch = _modules.get("torch")
    if torch is not None and type(result) is torch.Tensor:
        return _array(result.detach().double().cpu().numpy())
    return _array(result, dtype=np.float64)


def timed(run: Callable[[], Any], _now: Callable[[], float] = clock) -> tuple[float, F64]:
    """Run once: (microseconds until the result was there, a copy of the result)."""
    start = _now()
    result = finished(run())
    stop = _now()
    return (stop - start) * 1e6, copied(result)
