"""Data types of weights and activations, their bytes, and how people write them."""

import re

from moe_codesign.errors import UserError

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
DEFAULT_DTYPE = "bfloat16"
"""The type where neither the user nor the model names one."""
_SPELLINGS = {
    "bfloat16": "bf16 w16a16",
    "float16": "fp16 f16 half",
    "fp8": "float8 fp8_w8a8 w8a8_fp8 fp8_e4m3 fp8_e4m3fn float8_e4m3 float8_e4m3fn float8_e4m3fnuz e4m3 e4m3fn "
    "f8e4m3fn",
    "fp8_block": "block_fp8 fp8_blockwise blockwise_fp8 fp8_w8a8_block fp8_block_w8a8 fp8_pb_wo deepseek_fp8",
    "int8": "i8 int8_w8a8 w8a8 w8a8_int8",
    "mxfp4": "mxfp4_w4a16 w4a16_mxfp4",
    "int4": "i4 uint4 w4a16 int4_w4a16 w4a16_int4 int4_wo w4a16_awq awq gptq awq_marlin gptq_marlin",
    "fp4": "float4 float4_e2m1 float4_e2m1fn fp4_e2m1 e2m1 f4e2m1fn",
}
"""Other ways to write each type: those of torch, JAX, vLLM, SGLang, TensorRT-LLM and aiconfigurator."""
OTHER_DTYPES = {
    "nvfp4": "NVFP4 (a scale per 16 weights)",
    "mxfp8": "MXFP8 (a scale per 32 weights)",
    "float32": "32 bits",
    "int8_weight_only": "8-bit weights under 16-bit activations",
    "fp8_weight_only": "fp8 weights under 16-bit activations",
    "w4a8": "4-bit weights under 8-bit activations",
    "fp8_e5m2": "fp8 of range (e5m2)",
    "nf4": "bitsandbytes' 4 bits",
}
"""Types that files and people name and that no kernel here has, and what they are."""
OTHER_BYTES = {
    "nvfp4": 0.5 + 1 / 16,
    "mxfp8": 1 + 1 / 32,
    "float32": 4.0,
    "int8_weight_only": 1.0,
    "fp8_weight_only": 1.0,
    "w4a8": 0.5 + 2 / 128,
    "fp8_e5m2": 1.0,
    "nf4": 0.5 + 4 / 64,
}
"""Bytes of one weight of :data:`OTHER_DTYPES`, with its share of a scale: an fp8 per 16 (``nvfp4``), a byte per 32
(``mxfp8``), 16 bits per 128 (``w4a8``), a float32 per 64 (``nf4``)."""
_OTHER_SPELLINGS = {
    "nvfp4": "nvfp4_w4a4 w4a4_nvfp4",
    "mxfp8": "mxfp8_w8a8",
    "float32": "fp32 f32 float",
    "int8_weight_only": "int8_w8a16 w8a16 int8_wo",
    "fp8_weight_only": "fp8_w8a16 fp8_wo",
    "w4a8": "w4afp8 int4_w4a8 w4a8_fp8 w4a8_int8 w4a8_mxfp4 mxfp4_w4a8",
    "fp8_e5m2": "float8_e5m2 e5m2 f8e5m2",
    "nf4": "bnb_nf4",
}


def _key(text: str) -> str:
    return re.sub(
        r"[^a-z0-9]", "", re.sub(r"^(torch|jnp|jax\.numpy|np|numpy|tl|ml_dtypes)\.", "", text.strip().lower())
    )


_BY_KEY = {
    _key(spelling): name
    for table, names in ((_SPELLINGS, DTYPE_BYTES), (_OTHER_SPELLINGS, OTHER_DTYPES))
    for name in names
    for spelling in (name, *table[name].split())
}


def name_of_dtype(text: str) -> str | None:
    """The one name of a type that people write in many ways, ours or of :data:`OTHER_DTYPES`; None for another word."""
    return _BY_KEY.get(_key(text))


def bytes_of_weight(dtype: str, group: int = 128) -> float:
    """Bytes of one weight of any type that has a name here, with its share of a scale.

    Args:
        dtype: one of :data:`DTYPE_BYTES` or :data:`OTHER_DTYPES`.
        group: weights that share one 16-bit scale, of 4-bit integers (``int4``, ``w4a8``), whose checkpoints differ.
    """
    if dtype in ("int4", "w4a8"):
        return 0.5 + 2 / group
    return DTYPE_BYTES[dtype] if dtype in DTYPE_BYTES else OTHER_BYTES[dtype]


def parse_dtype(text: str) -> str:
    """One of :data:`DTYPE_BYTES` from any usual spelling: ``bf16``, ``torch.bfloat16``, ``fp8_w8a8``, ``w4a16``.

    Raises:
        UserError: no such type, or one that no kernel here has.
    """
    name = text if text in DTYPE_BYTES else name_of_dtype(text)
    if name in DTYPE_BYTES:
        return name
    known = "use one of " + ", ".join(DTYPE_BYTES)
    if name is not None:
        raise UserError("dtype", value=text, fix=f"that is {OTHER_DTYPES[name]}, which no kernel here has; {known}")
    raise UserError("dtype", value=text, fix=known)


def activation_bytes(dtype: str) -> float:
    """Bytes of one activation as the matrix units read it."""
    return 2.0 if dtype in WEIGHT_ONLY else DTYPE_BYTES[dtype]
