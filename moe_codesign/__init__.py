"""Search the shape of a mixture-of-experts layer and the kernel that runs it together, for a given chip.

``import moe_codesign as mc`` loads neither numpy, torch, triton nor jax; the names below load what they need when they
are first used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moe_codesign.api.audit import audit
    from moe_codesign.api.bench import bench
    from moe_codesign.api.calibrate import calibrate, calibrate_ours
    from moe_codesign.api.compile import compile_function, compile_kernel
    from moe_codesign.api.frontier import frontier
    from moe_codesign.api.lock_in import lock_in
    from moe_codesign.api.model import model
    from moe_codesign.api.predict import predict
    from moe_codesign.api.regress import regress, regress_against, regress_history, regress_versions
    from moe_codesign.api.report import load_study, report
    from moe_codesign.api.robust import robust
    from moe_codesign.api.search import search
    from moe_codesign.api.sweet_spots import sweet_spots
    from moe_codesign.api.three_layers import three_layers
    from moe_codesign.chips import load_chip
    from moe_codesign.domain.model_shape import ModelShape
    from moe_codesign.domain.shape import MoEShape
    from moe_codesign.domain.workload import Workload
    from moe_codesign.models import find_model, model_shape
    from moe_codesign.study.space import Space, load_space, parse_space

_HOME = {
    "ModelShape": "domain.model_shape",
    "MoEShape": "domain.shape",
    "Space": "study.space",
    "Workload": "domain.workload",
    "audit": "api.audit",
    "bench": "api.bench",
    "calibrate": "api.calibrate",
    "calibrate_ours": "api.calibrate",
    "compile_function": "api.compile",
    "compile_kernel": "api.compile",
    "find_model": "models",
    "frontier": "api.frontier",
    "load_chip": "chips",
    "load_space": "study.space",
    "load_study": "api.report",
    "lock_in": "api.lock_in",
    "model": "api.model",
    "model_shape": "models",
    "parse_space": "study.space",
    "predict": "api.predict",
    "regress": "api.regress",
    "regress_against": "api.regress",
    "regress_history": "api.regress",
    "regress_versions": "api.regress",
    "report": "api.report",
    "robust": "api.robust",
    "search": "api.search",
    "sweet_spots": "api.sweet_spots",
    "three_layers": "api.three_layers",
}

__all__ = [
    "MoEShape",
    "ModelShape",
    "Space",
    "Workload",
    "audit",
    "bench",
    "calibrate",
    "calibrate_ours",
    "compile_function",
    "compile_kernel",
    "find_model",
    "frontier",
    "load_chip",
    "load_space",
    "load_study",
    "lock_in",
    "model",
    "model_shape",
    "parse_space",
    "predict",
    "regress",
    "regress_against",
    "regress_history",
    "regress_versions",
    "report",
    "robust",
    "search",
    "sweet_spots",
    "three_layers",
]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
