"""Make Triton's interpreter multiply bfloat16.

The interpreter keeps bfloat16 as its bits in uint16, and its ``dot`` (3.6.0, 3.7.1) multiplies those bits as
whole numbers. Widening to float32 first is exact, as matrix units do it. Only for ``TRITON_INTERPRET=1``.
"""

from typing import Any

import numpy as np
import triton.language as tl
from triton.runtime import interpreter


def _widen(handle: Any) -> Any:
    if handle.dtype.scalar != tl.bfloat16:
        return handle
    bits = handle.data.astype(np.uint32) << 16
    return interpreter.TensorHandle(bits.view(np.float32), tl.float32)


def enable_bfloat16_dot() -> None:
    """Patch the interpreter's ``dot`` once for this process."""
    builder = interpreter.InterpreterBuilder
    original = builder.create_dot
    if getattr(original, "widens_bfloat16", False):
        return

    def create_dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        return original(self, _widen(a), _widen(b), *rest)

    create_dot.widens_bfloat16 = True  # type: ignore[attr-defined]
    builder.create_dot = create_dot
