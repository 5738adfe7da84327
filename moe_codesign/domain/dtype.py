"""Data types of weights and activations, and their bytes."""

DTYPE_BYTES = {
    "bfloat16": 2.0,
    "float16": 2.0,
    "fp8": 1.0,
    "fp8_block": 1.0,
    "int8": 1.0,
    "mxfp4": 0.5 + 1 / 32,
    "int4": 0.5 + 2 / 128,
    "fp4": 0.5,
}
"""Bytes of one weight, with its share of a scale: a byte per 32 (``mxfp4``), 16 bits per 128 (``int4``). The scales of
8-bit types (one float32 per channel or 128x128) are left out: 0.1 % at most."""
SCALE_GROUP = {"mxfp4": 32, "int4": 128, "fp4": 16}
"""Weights along K that share a scale, for types whose groups must be whole: OCP microscaling, the usual group of AWQ
and GPTQ checkpoints, NVIDIA's nvfp4."""
SCALE_BLOCK = {"fp8_block": 128}
"""Side of a square block of weights that share a scale (DeepSeek-V3). The last block of a matrix may be cut off, but a
rank's part cannot begin inside of one."""
WEIGHT_ONLY = ("mxfp4", "int4")
"""Types of weights alone: activations stay in 16 bits, and so do the matrix instructions."""


def activation_bytes(dtype: str) -> float:
    """Bytes of one activation as the matrix units read it."""
    return 2.0 if dtype in WEIGHT_ONLY else DTYPE_BYTES[dtype]
