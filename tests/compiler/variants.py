"""Compiles forms of the kernels that the tool's requests do not name; importable by child processes."""

import importlib
from typing import Any

import triton

from moe_codesign.compiler.artifact import GpuFacts
from moe_codesign.compiler.gpu import binary_facts
from moe_kernels.tile import TritonTile
from moe_kernels.triton import ahead_of_time
from moe_kernels.triton.formats import fp8_type, missing_on

TILE = TritonTile(block_m=64, block_n=64, block_k=64, num_warps=4, num_stages=3)
FORMS: dict[str, dict[str, Any]] = {
    "partial results": {"op": "gate_up", "epilogue": "partial"},
    "rows for an ordered sum": {"op": "down", "epilogue": "rows"},
    "K that no step divides": {"op": "gate_up", "even_k": False},
    "bias and clamped SwiGLU": {"op": "gate_up", "bias": True, "activation": "swiglu_oai"},
    "GeGLU": {"op": "gate_up", "activation": "geglu"},
    "GeGLU by tanh": {"op": "gate_up", "activation": "geglu_tanh"},
    "not gated": {"op": "up", "activation": "relu2"},
    "data gradient": {"op": "down", "epilogue": "rows", "transposed": True, "even_k": False},
}


_F32 = {"alpha": "fp32", "limit": "fp32", "scaling": "fp32", "top": "fp32"}
_GATED = {"MATRICES": 2, "ACTIVATION": "swiglu", "BLOCK": 512, "dtype": "float32"}
_ROUTER = {"NUM_GROUPS": 8, "GROUPS": 8, "PER_GROUP": 32, "TOP_GROUPS": 4, "TOP_K": 8, "K_PADDED": 8}
_SIGMOID = {"SIGMOID": True, "RENORMALIZE": True, "TOP2": True}
_TINY = dict.fromkeys(_ROUTER, 1)
AUXILIARY: dict[str, tuple[str, str, dict[str, str], dict[str, Any]]] = {
    # module, kernel, types that are not int32, constants
    "activate": ("rows", "activate_kernel", {"product_ptr": "*fp32", "hidden_ptr": "*bf16"}, _GATED),
    "activate backward": (
        "rows",
        "activate_backward_kernel",
        {f"{n}_ptr": "*bf16" for n in ("product", "d_hidden", "d_product", "weighted_hidden")}
        | {"weight_ptr": "*fp32", "d_weight_ptr": "*fp32"},
        _GATED,
    ),
    "combine": (
        "rows",
        "combine_kernel",
        {"rows_ptr": "*bf16", "out_ptr": "*bf16"},
        {"BLOCK": 512, "dtype": "float32"},
    ),
    "quantize int8": (
        "quantize",
        "quantize_kernel",
        {"x_ptr": "*bf16", "out_ptr": "*i8", "scale_ptr": "*fp32"},
        {"BLOCK": 1024, "FORMAT": "int8"},
    ),
    "quantize fp8_block": (
        "quantize",
        "quantize_kernel",
        {"x_ptr": "*bf16", "out_ptr": "fp8", "scale_ptr": "*fp32"},
        {"BLOCK": 1024, "FORMAT": "fp8_block", "num_valid_ptr": None},
    ),
    "route": (
        "router",
        "route_kernel",
        {"logits_ptr": "*bf16", "bias_ptr": "*fp32", "weights_ptr": "*fp32"},
        _ROUTER | _SIGMOID,
    ),
    "route one of one": (
        "router",
        "route_kernel",
        {"logits_ptr": "*fp32", "weights_ptr": "*fp32"},
        _TINY | _SIGMOID | {"SIGMOID": False, "bias_ptr": None},
    ),
    "count": ("alignment", "count_kernel", {"ids_ptr": "*i64"}, {"BLOCK": 1024}),
    "place few": (
        "alignment",
        "place_kernel",
        {},
        {"BLOCK": 16, "EXPERTS": 16, "COUNT_HERE": True, "TWO_LISTS": False},
    ),
    "place many": (
        "alignment",
        "place_kernel",
        {"ids_ptr": "*i64"},
        {"BLOCK": 1024, "EXPERTS": 256, "COUNT_HERE": False, "TWO_LISTS": True},
    ),
}
"""The kernels around the GEMMs."""


def compile_auxiliary(name: str, ones: bool, target: str) -> str:
    """Empty if one of the kernels around the GEMMs compiles, else what the compiler said.

    ``ones``: every whole number is 1, which a launch makes a compile-time constant.
    """
    module, kernel, types, constants = AUXILIARY[name]
    if "fp8" in types.values():
        if missing_on("fp8", target):
            return ""
        types = types | {"out_ptr": f"*{fp8_type(target)}"}
    function = getattr(importlib.import_module(f"moe_kernels.triton.{module}"), kernel)
    fixed = {k: triton.language.float32 if v == "float32" else v for k, v in constants.items()}
    if ones:
        plain = [n for n in function.arg_names if not n.endswith("_ptr") and n not in _F32 and n not in fixed]
        fixed |= dict.fromkeys(plain, 1)
    try:
        binary_facts(ahead_of_time.any_source(function, {**_F32, **types}, fixed), {}, target)
    except Exception as error:
        return f"{type(error.__cause__ or error).__name__}: {error.__cause__ or error}"[:300]
    return ""


def compile_form(name: str, dtype: str, target: str) -> GpuFacts | str:
    """Facts of one form, or the reason why the target has not the type."""
    if reason := missing_on(dtype, target):
        return reason
    if name == "weight gradient":
        from moe_kernels.triton.weight_gradient import TILE as TILE_OF_WEIGHTS
        from moe_kernels.triton.weight_gradient import weight_gradient_kernel

        source, options = ahead_of_time.weight_gradient_source(
            weight_gradient_kernel, TILE_OF_WEIGHTS, dtype, gather_left=True
        )
    else:
        from moe_kernels.triton.grouped_gemm.kernel import grouped_gemm_kernel

        form = dict(FORMS[name])
        source, options = ahead_of_time.source(grouped_gemm_kernel, form.pop("op"), TILE, dtype, target, **form)
    return binary_facts(source, options, target)
