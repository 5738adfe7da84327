"""Search the shape of a mixture-of-experts layer and the kernel that runs it together, for a given chip.

``import moe_codesign as mc`` loads neither torch, triton nor jax; the functions below do when called.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moe_codesign.api import (
        audit,
        bench,
        calibrate,
        compile_kernel,
        load_study,
        predict,
        regress,
        report,
        search,
    )
    from moe_codesign.chips import load_chip
    from moe_codesign.models import find_model
    from moe_codesign.shape import MoEShape
    from moe_codesign.workload import Workload

_HOME = {
    **dict.fromkeys(
        ("audit", "bench", "calibrate", "compile_kernel", "load_study", "predict", "regress", "report", "search"), "api"
    ),
    "load_chip": "chips",
    "find_model": "models",
    "MoEShape": "shape",
    "Workload": "workload",
}

__all__ = [
    "MoEShape",
    "Workload",
    "audit",
    "bench",
    "calibrate",
    "compile_kernel",
    "find_model",
    "load_chip",
    "load_study",
    "predict",
    "regress",
    "report",
    "search",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
