"""Make Triton's interpreter round and multiply narrow floats as GPUs do.

The interpreter (3.6.0, 3.7.1) keeps the bits of bfloat16 and fp8 in whole numbers. Its arithmetic and ``dot`` then work
on the bits of bfloat16, it has no bfloat16 constants, its conversion to bfloat16 truncates instead of rounding, and its
conversion to fp8 loses the carry into the exponent. Here all of these go through ml_dtypes, which rounds to nearest
even. Its maximum and minimum return NaN where GPUs' pass over it; here they pass over it too. Only for
``TRITON_INTERPRET=1``; :func:`moe_kernels.triton.device.launching_on` sees to it before every launch.
"""

from typing import Any

import ml_dtypes
import numpy as np
import triton.language as tl
from triton.runtime import interpreter

_NARROW = {
    tl.bfloat16: ml_dtypes.bfloat16,
    tl.float8e4nv: ml_dtypes.float8_e4m3fn,
    tl.float8e4b8: ml_dtypes.float8_e4m3fnuz,
    tl.float8e5: ml_dtypes.float8_e5m2,
}


def _widen(handle: Any) -> Any:
    narrow = _NARROW.get(handle.dtype.scalar)
    if narrow is None:
        return handle
    return interpreter.TensorHandle(handle.data.view(narrow).astype(np.float32), tl.float32)


def _narrow(data: np.ndarray, dtype: Any) -> np.ndarray:
    wide = data.astype(np.float32)
    if dtype in (tl.float8e4nv, tl.float8e4b8):
        # Triton saturates, ml_dtypes overflows to NaN.
        top = float(ml_dtypes.finfo(_NARROW[dtype]).max)
        wide = np.clip(wide, -top, top)
    rounded = wide.astype(_NARROW[dtype])
    return rounded.view(np.uint16 if dtype == tl.bfloat16 else np.uint8)


def _quietly() -> np.errstate:
    """Rows past an expert's end may hold anything, even infinity. They are computed, but never stored."""
    return np.errstate(invalid="ignore", over="ignore")


def correct_narrow_floats() -> None:
    """Patch the interpreter of this process; a second call changes nothing."""
    builder = interpreter.InterpreterBuilder
    if getattr(builder, "rounds_narrow_floats", False):
        return
    original_dot, original_binary, original_cast = builder.create_dot, builder.binary_op, builder.cast_impl

    def create_dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        with _quietly():
            return original_dot(self, _widen(a), _widen(b), *rest)

    def binary_op(self: Any, lhs: Any, rhs: Any, op: Any) -> Any:
        scalar = lhs.dtype.scalar
        with _quietly():
            if scalar not in _NARROW:
                return original_binary(self, lhs, rhs, op)
            result = op(_widen(lhs).data, _widen(rhs).data)
        if result.dtype == np.bool_:
            return interpreter.TensorHandle(result, tl.int1)
        return interpreter.TensorHandle(_narrow(result, scalar), scalar)

    def cast_impl(self: Any, src: Any, dst_type: Any) -> Any:
        scalar = dst_type.scalar
        if src.dtype.scalar not in _NARROW and scalar not in _NARROW:
            return original_cast(self, src, dst_type)
        wide = _widen(src)
        if scalar in _NARROW:
            return interpreter.TensorHandle(_narrow(wide.data, scalar), scalar)
        return original_cast(self, wide, dst_type)

    def create_fp_to_fp(self: Any, src: Any, dst_type: Any, _rounding: Any) -> Any:
        return cast_impl(self, src, dst_type)

    def get_bf16(_self: Any, value: float) -> Any:
        return interpreter.TensorHandle(_narrow(np.array([value]), tl.bfloat16), tl.bfloat16)

    def create_maxnumf(self: Any, lhs: Any, rhs: Any) -> Any:
        return self.binary_op(lhs, rhs, np.fmax)

    def create_minnumf(self: Any, lhs: Any, rhs: Any) -> Any:
        return self.binary_op(lhs, rhs, np.fmin)

    builder.create_maxnumf, builder.create_minnumf = create_maxnumf, create_minnumf
    builder.get_bf16 = get_bf16
    builder.create_dot, builder.binary_op = create_dot, binary_op
    builder.cast_impl, builder.create_fp_to_fp = cast_impl, create_fp_to_fp
    builder.rounds_narrow_floats = True
