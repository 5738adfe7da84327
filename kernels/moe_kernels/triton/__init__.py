"""Triton kernels for NVIDIA and AMD GPUs: ``from moe_kernels.triton import fused_moe, Router``.

Names are loaded on first use, so that reading a kernel's declaration does not import torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moe_kernels.tile import TritonTile
    from moe_kernels.triton.layer import Expert
    from moe_kernels.triton.operators.experts import experts, fused_moe
    from moe_kernels.triton.operators.grouped_mm import grouped_mm
    from moe_kernels.triton.quantize import QuantizedWeights, dequantize_weights, quantize_weights
    from moe_kernels.triton.router import Router
    from moe_kernels.triton.tiles import TunedTable, use_tuned

_HOME = {
    "Expert": "moe_kernels.triton.layer",
    "QuantizedWeights": "moe_kernels.triton.quantize",
    "Router": "moe_kernels.triton.router",
    "TritonTile": "moe_kernels.tile",
    "TunedTable": "moe_kernels.triton.tiles",
    "dequantize_weights": "moe_kernels.triton.quantize",
    "experts": "moe_kernels.triton.operators.experts",
    "fused_moe": "moe_kernels.triton.operators.experts",
    "grouped_mm": "moe_kernels.triton.operators.grouped_mm",
    "quantize_weights": "moe_kernels.triton.quantize",
    "use_tuned": "moe_kernels.triton.tiles",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


__all__ = [
    "Expert",
    "QuantizedWeights",
    "Router",
    "TritonTile",
    "TunedTable",
    "dequantize_weights",
    "experts",
    "fused_moe",
    "grouped_mm",
    "quantize_weights",
    "use_tuned",
]
