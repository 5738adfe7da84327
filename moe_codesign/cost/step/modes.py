"""Which kind of each operation a stack runs for a model, by the data types of the model's parts."""

from dataclasses import dataclass

from moe_codesign.chips import Chip
from moe_codesign.domain.model_shape import PartTypes
from moe_codesign.errors import UserError

_GEMM = {
    "bfloat16": "bfloat16",
    "float16": "bfloat16",
    "float32": "bfloat16",
    "fp8": "fp8",
    "fp8_block": "fp8_block",
    "nvfp4": "nvfp4",
}
"""Dense products of a data type. Routers and the like that are kept in float32 are multiplied in 16 bits."""
_MOE = {**_GEMM, "int4": "int4_wo"}


@dataclass(frozen=True, kw_only=True)
class Modes:
    """The variant of each operation; see the ``variants`` of :mod:`moe_codesign.cost.operations`.

    Args:
        projections, dense, shared, head: of the dense products of these parts.
        moe: of the fused MoE layer.
        attention: of attention's products and its cache.
    """

    projections: str
    dense: str
    shared: str
    head: str
    moe: str
    attention: str

    @classmethod
    def of(cls, types: PartTypes, chip: Chip) -> "Modes":
        """The kinds that stacks run by default.

        4-bit weights in blocks of 32 (mxfp4) meet 8-bit activations where the chip has 4-bit matrix units, and 16-bit
        ones elsewhere, as gpt-oss runs in all three stacks.

        Raises:
            UserError: a part has a type that no operation was timed with.
        """
        kept = "fp8" if types.kv_cache.startswith("fp8") else "bfloat16"
        if types.experts == "mxfp4":
            moe = "w4a8_mxfp4_mxfp8" if "fp4" in chip.peak_flops_per_s else "w4a16_mxfp4"
        else:
            moe = _of("experts", types.experts, _MOE)
        return cls(
            projections=_of("attention", types.attention, _GEMM),
            dense=_of("dense parts", types.dense, _GEMM),
            shared=_of("shared experts", types.shared, _GEMM),
            head=_of("the head", types.head, _GEMM),
            moe=moe,
            attention=f"bfloat16/{kept}",
        )


def _of(part: str, dtype: str, known: dict[str, str]) -> str:
    if dtype not in known:
        raise UserError(f"type of {part}", value=dtype, fix="time is known of " + ", ".join(known))
    return known[dtype]
