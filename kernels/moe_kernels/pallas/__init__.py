"""Pallas kernels for TPUs (and one for the host): ``from moe_kernels.pallas import grouped_mm, PallasTile``.

Names are loaded on first use, so that reading a kernel's declaration does not import JAX.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moe_kernels.pallas.autodiff import differentiable_mm
    from moe_kernels.pallas.grouped_matmul.matmul import grouped_mm
    from moe_kernels.pallas.layer import moe_experts
    from moe_kernels.pallas.quantize import quantize_weights
    from moe_kernels.tile import PallasTile

_HOME = {
    "PallasTile": "moe_kernels.tile",
    "differentiable_mm": "moe_kernels.pallas.autodiff",
    "grouped_mm": "moe_kernels.pallas.grouped_matmul.matmul",
    "moe_experts": "moe_kernels.pallas.layer",
    "quantize_weights": "moe_kernels.pallas.quantize",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


__all__ = ["PallasTile", "differentiable_mm", "grouped_mm", "moe_experts", "quantize_weights"]
