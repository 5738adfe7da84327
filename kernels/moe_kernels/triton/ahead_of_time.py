"""Signatures of the kernels for ``triton.compile``, which needs them where there are no tensors and no GPU."""

from typing import Any

import triton

from moe_kernels.kernel import Op
from moe_kernels.tile import TritonTile
from moe_kernels.triton.formats import FORMATS, MX_GROUP, fp8_type

_ELEMENT = {
    "bfloat16": ("bf16", "bf16"),
    "float16": ("fp16", "fp16"),
    "int8": ("i8", "i8"),
    "mxfp4": ("bf16", "u8"),
    "int4": ("bf16", "u8"),
}
"""Triton's names of the types of (activation, stored weight), by data type."""
_SCALES = {
    "fp8": ("*fp32", "*fp32"),
    "fp8_block": ("*fp32", "*fp32"),
    "int8": ("*fp32", "*fp32"),
    "mxfp4": (None, "*u8"),
    "int4": (None, "*bf16"),
}
_ALIGNED = ("num_rows", "K", "N", "w_stride_expert", "w_stride_matrix", "w_stride_row")
"""Whole numbers that are taken to be multiples of 16. Without these hints, and without pointers aligned to 16 bytes,
the compiler issues narrow loads and no asynchronous copies."""


def source(
    function: Any,
    op: Op,
    tile: TritonTile,
    dtype: str,
    target: str,
    *,
    activation: str | None = None,
    epilogue: str | None = None,
    even_k: bool = True,
    transposed: bool = False,
    bias: bool = False,
) -> tuple[Any, dict[str, Any]]:
    """The source and options that compile one form of the grouped GEMM, with the alignment that a launch would have.

    Args:
        function: the kernel.
        op: which of the layer's GEMMs.
        tile: its tile.
        dtype: a name of :mod:`moe_kernels.triton.formats`.
        target: ``cuda:90``, ``hip:gfx942``.
        activation: by default SwiGLU for ``gate_up`` and squared ReLU for ``up``.
        epilogue: by default ``add`` for ``down`` and ``hidden`` for the others, which is what the tool times.
        even_k: K is a multiple of block_k.
        transposed: weights are [experts, K, N], as in the data gradient.
        bias: there is a bias.
    """
    gather, matrices = op != "down", 2 if op == "gate_up" else 1
    a_type, w_type = _ELEMENT.get(dtype) or (fp8_type(target),) * 2
    a_scale, w_scale = _SCALES.get(dtype, (None, None))
    epilogue = epilogue or ("add" if op == "down" else "hidden")
    out = "fp32" if epilogue in ("add", "partial") else "fp16" if dtype == "float16" else "bf16"
    packed = FORMATS[dtype].packed
    types: dict[str, str | None] = {
        "a": f"*{a_type}",
        "w": f"*{w_type}",
        "out_ptr": f"*{out}",
        "a_scale_ptr": a_scale,
        "w_scale_ptr": w_scale,
        "bias_ptr": "*bf16" if bias else None,
        "row_weight_ptr": None if gather else "*fp32",
        "alpha": "fp32",
        "limit": "fp32",
    }
    if tile.tma:
        box = [1, tile.block_n, matrices, tile.block_k // packed]
        types["w"] = f"tensordesc<{w_type}{box}>"
        if not gather and not tile.swap_ab:
            types["a"] = f"tensordesc<{a_type}{[tile.block_m, tile.block_k]}>"
    constants: dict[str, Any] = {
        "BLOCK_M": tile.block_m,
        "BLOCK_N": tile.block_n,
        "BLOCK_K": tile.block_k,
        "FORMAT": dtype,
        "MATRICES": matrices,
        "GATHER": gather,
        "EPILOGUE": epilogue,
        "ACTIVATION": activation or {"gate_up": "swiglu", "up": "relu2", "down": "none"}[op],
        "EVEN_K": even_k,
        "TRANSPOSED": transposed,
        "TMA": tile.tma,
        "SWAP_AB": tile.swap_ab,
        "W_GROUP": MX_GROUP if dtype == "mxfp4" else 128,
        "PERSISTENT": tile.persistent,
    } | {name: None for name, kind in types.items() if kind is None}
    return any_source(function, types, constants), tile.compile_options()


def weight_gradient_source(
    function: Any, tile: TritonTile, dtype: str, *, gather_left: bool
) -> tuple[Any, dict[str, Any]]:
    """The source and options that compile the kernel of the weight gradient."""
    element = _ELEMENT[dtype][0]
    constants: dict[str, Any] = {
        "GATHER_LEFT": gather_left,
        "GATHER_RIGHT": not gather_left,
        "BLOCK_M": tile.block_m,
        "BLOCK_N": tile.block_n,
        "BLOCK_K": tile.block_k,
        "dtype": triton.language.float32,
    }
    types: dict[str, str | None] = dict.fromkeys(("left_ptr", "right_ptr", "out_ptr"), f"*{element}")
    return any_source(function, types, constants), tile.compile_options()


def any_source(function: Any, types: dict[str, str | None], constants: dict[str, Any]) -> Any:
    """The source of any kernel.

    Args:
        function: the kernel.
        types: Triton's names of its arguments' types. An argument without one is a pointer to int32 if its name ends in
            ``_ptr``, and an int32 otherwise.
        constants: compile-time constants by name.

    Pointers are taken to be aligned to 16 bytes, except those that a launch does not specialise on.
    """
    names = function.arg_names
    plain = {p.name for p in function.params if p.do_not_specialize or p.do_not_specialize_on_alignment}
    signature = {
        n: "constexpr" if n in constants else types.get(n) or ("*i32" if n.endswith("_ptr") else "i32") for n in names
    }
    hinted = [n for n in names if signature[n].startswith("*") or (n in _ALIGNED and signature[n] == "i32")]
    aligned = [n for n in hinted if n not in plain]
    return triton.compiler.ASTSource(
        function,
        signature=signature,
        constexprs={(names.index(n),): value for n, value in constants.items()},
        attrs={(names.index(n),): [["tt.divisibility", 16]] for n in aligned},
    )
