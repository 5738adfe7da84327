"""Data types by the names that people and files have for them."""

import pytest

from moe_codesign.domain.dtype import DTYPE_BYTES, OTHER_DTYPES, name_of_dtype, parse_dtype
from moe_codesign.errors import UserError

SPELT = {
    "bfloat16": ("bf16", "BF16", "torch.bfloat16", "jnp.bfloat16", "bfloat16 "),
    "float16": ("fp16", "half", "torch.float16", "f16"),
    "fp8": ("FP8", "fp8_w8a8", "float8_e4m3fn", "torch.float8_e4m3fn", "fp8_e4m3", "e4m3", "w8a8-fp8"),
    "fp8_block": ("fp8-block", "FP8_BLOCK", "block_fp8", "fp8 blockwise"),
    "int8": ("int8_w8a8", "INT8", "w8a8"),
    "mxfp4": ("MXFP4", "mxfp4_w4a16"),
    "int4": ("w4a16", "int4_w4a16", "int4_wo", "awq", "W4A16"),
    "fp4": ("float4_e2m1fn", "FP4"),
}
OTHER = {
    "nvfp4": ("NVFP4", "nvfp4"),
    "float32": ("fp32", "torch.float32", "float"),
    "int8_weight_only": ("int8_w8a16", "w8a16", "int8_wo"),
    "fp8_weight_only": ("fp8_w8a16",),
    "w4a8": ("w4afp8", "int4_w4a8"),
    "fp8_e5m2": ("float8_e5m2",),
}


@pytest.mark.parametrize("name", DTYPE_BYTES)
def test_usual_spellings(name: str) -> None:
    for text in (name, *SPELT[name]):
        assert parse_dtype(text) == name, text


@pytest.mark.parametrize("name", OTHER)
def test_a_type_that_no_kernel_has_is_named_as_such(name: str) -> None:
    for text in OTHER[name]:
        assert name_of_dtype(text) == name
        with pytest.raises(UserError, match="no kernel here has"):
            parse_dtype(text)


@pytest.mark.parametrize("text", ["", "fp3", "bf", "8", "quantized"])
def test_words_that_name_no_type(text: str) -> None:
    assert name_of_dtype(text) is None
    with pytest.raises(UserError, match="use one of bfloat16"):
        parse_dtype(text)


def test_no_spelling_means_two_types() -> None:
    assert not set(DTYPE_BYTES) & set(OTHER_DTYPES)
