"""Four-bit weights to 16 bits, in registers.

A byte holds two neighbours along K, the first in its low four bits. Both are handled as the halves of one 32-bit word,
so that most instructions work on two elements at once.
"""

import triton
import triton.language as tl


@triton.jit
def _twins(packed):
    # byte 0x..HL to word 0x000H000L
    return (packed.to(tl.uint32) * 0x1001) & 0x000F000F


@triton.jit
def _halves(word, dtype: tl.constexpr):
    low = word.to(tl.uint16).to(dtype, bitcast=True)
    high = (word >> 16).to(tl.uint16).to(dtype, bitcast=True)
    # interleave joins along the last dimension: a thread keeps its bytes' elements.
    return tl.interleave(low, high)


@triton.jit
def _int4(packed, dtype: tl.constexpr):
    # In the low mantissa bits of 128 (bfloat16) or 1024 (float16) a code needs a subtraction and no conversion.
    if dtype == tl.float16:
        value = _halves(_twins(packed) | 0x64006400, tl.float16) - 1032.0
    else:
        value = _halves(_twins(packed) | 0x43004300, tl.bfloat16) - 136.0
    return value


@triton.jit
def _e2m1(packed, dtype: tl.constexpr):
    # A code's exponent and mantissa are put on the lowest bits of the wide exponent and the highest of the mantissa.
    # The value is then right up to a power of two, the subnormal included (OCP Microscaling Formats 1.0, 5.3.3).
    code = _twins(packed)
    if dtype == tl.float16:
        value = _halves(((code & 0x00080008) << 12) | ((code & 0x00070007) << 9), tl.float16) * 16384.0
    else:
        value = _halves(((code & 0x00080008) << 12) | ((code & 0x00070007) << 6), tl.bfloat16) * 8.507059173023462e37
    return value


@triton.jit
def _e8m0(exponent, dtype: tl.constexpr):
    if dtype == tl.float16:
        factor = tl.exp2(exponent.to(tl.float32) - 127.0).to(tl.float16)
    else:
        factor = (exponent.to(tl.uint16) << 7).to(tl.bfloat16, bitcast=True)
    return factor


@triton.jit
def unpack(
    packed, scale, FORMAT: tl.constexpr, dtype: tl.constexpr, ROWS: tl.constexpr, K: tl.constexpr, GROUPS: tl.constexpr
):
    """Unpack bytes [ROWS, K / 2] with scales [ROWS, GROUPS] to [ROWS, K] of ``dtype``.

    In ``mxfp4`` codes are e2m1 and scales e8m0, and the result is exact. In ``int4`` the value is code - 8 and scales
    have 16 bits; the product rounds once.
    """
    if FORMAT == "mxfp4":
        value = _e2m1(packed, dtype)
        factor = _e8m0(scale, dtype)
    else:
        value = _int4(packed, dtype)
        factor = scale.to(dtype)
    groups = tl.reshape(value.to(dtype), (ROWS, GROUPS, K // GROUPS)) * factor[:, :, None]
    return tl.reshape(groups.to(dtype), (ROWS, K))
