"""What the data types of a whole model's parts weigh in bytes, and at which rate of a chip's file they run."""

from collections.abc import Mapping

from moe_codesign.errors import UserError

BYTES: Mapping[str, float] = {
    "bfloat16": 2.0,
    "float16": 2.0,
    "fp8": 1.0,
    "fp8_block": 1.0 + 4.0 / 128**2,
    "nvfp4": 0.5 + 1.0 / 16,
    "mxfp4": 0.5 + 1.0 / 32,
    "int8": 1.0,
    "int4": 0.5 + 2.0 / 128,
}
"""Bytes of a weight, with its share of the scales: one of 4 bytes for 128 x 128 in fp8_block, of 1 byte for 16 in nvfp4
and for 32 in mxfp4, of 2 bytes for 128 in int4."""

_RATE: Mapping[str, tuple[str, ...]] = {
    "bfloat16": ("bfloat16",),
    "float16": ("float16", "bfloat16"),
    "fp8": ("fp8",),
    "fp8_block": ("fp8",),
    "nvfp4": ("fp4",),
    "mxfp4": ("bfloat16",),
    "int8": ("int8",),
    "int4": ("bfloat16",),
}


def flops_per_us(flops: Mapping[str, float], dtype: str, chip: str) -> float:
    """Dense operations of a chip for products of that type, 4-bit weights beside 16-bit activations at 16 bits' rate.

    Args:
        flops: of the chip by the type that its file names.
        dtype: of the operands.
        chip: its name, for the message.

    Raises:
        UserError: the chip has no matrix units for the type.
    """
    if dtype not in _RATE:
        raise UserError("data type", value=dtype, fix="use one of " + ", ".join(_RATE))
    for rate in _RATE[dtype]:
        if rate in flops:
            return flops[rate]
    raise UserError(f"{chip} has no {dtype} matrix units", fix="use one of " + ", ".join(flops))
