"""Compiles forms of the kernels that the tool's requests do not name; importable by child processes."""

from typing import Any

from moe_codesign.compiler.artifact import GpuFacts
from moe_codesign.compiler.gpu import binary_facts
from moe_kernels.tile import TritonTile
from moe_kernels.triton import ahead_of_time
from moe_kernels.triton.formats import missing_on

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
        from moe_kernels.triton.grouped_gemm import grouped_gemm_kernel

        form = dict(FORMS[name])
        source, options = ahead_of_time.source(grouped_gemm_kernel, form.pop("op"), TILE, dtype, target, **form)
    return binary_facts(source, options, target)
