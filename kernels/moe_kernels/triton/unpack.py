"""Four-bit weights to 16 bits, in registers.

A byte holds two neighbours along K, the first in the low nibble. Both are handled as the halves of one 32-bit word,
so most instructions serve two elements.
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
def int4(packed, dtype: tl.constexpr):
    """[N, K / 2] bytes to [N, K] of whole numbers -8..7, stored as 0..15.

    In the low mantissa bits of 128 (bfloat16) or 1024 (float16) a code needs a subtraction and no conversion.
    """
    if dtype == tl.float16:
        value = _halves(_twins(packed) | 0x64006400, tl.float16) - 1032.0
    else:
        value = _halves(_twins(packed) | 0x43004300, tl.bfloat16) - 136.0
    return value.to(dtype)


@triton.jit
def mxfp4(packed, scale, dtype: tl.constexpr, ROWS: tl.constexpr, BLOCK_K: tl.constexpr):
    """[ROWS, BLOCK_K / 2] bytes of e2m1 and [ROWS, BLOCK_K / 32] exponents e8m0 to [ROWS, BLOCK_K].

    A code's exponent and mantissa are put on the lowest bits of the wide exponent and the highest of the mantissa:
    then the value is right but for a power of two, e2m1's subnormal included (OCP Microscaling Formats 1.0, 5.3.3).
    """
    code = _twins(packed)
    if dtype == tl.float16:
        value = _halves(((code & 0x00080008) << 12) | ((code & 0x00070007) << 9), tl.float16) * 16384.0
        factor = tl.exp2(scale.to(tl.float32) - 127.0).to(tl.float16)
    else:
        value = _halves(((code & 0x00080008) << 12) | ((code & 0x00070007) << 6), tl.bfloat16) * 8.507059173023462e37
        factor = (scale.to(tl.uint16) << 7).to(tl.bfloat16, bitcast=True)
    groups = tl.reshape(value.to(dtype), (ROWS, BLOCK_K // 32, 32)) * factor[:, :, None]
    return tl.reshape(groups.to(dtype), (ROWS, BLOCK_K))
