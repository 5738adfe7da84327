"""NVIDIA's measured times of fused MoE layers (the package aiconfigurator-core): where its tables lie and what their
columns mean."""

import importlib.util
from pathlib import Path
from typing import Any

from moe_codesign.chips import GpuChip
from moe_codesign.errors import UserError
from moe_codesign.extras import require

_FOLDERS = {"b200": "b200_sxm", "b300": "b300_sxm", "rtx_pro_6000": "rtx_pro_6000_server"}
"""aiconfigurator's names of chips where they are not ours."""
_VERSIONS = {
    "vllm": ("0.24.0",),
    "sglang": ("0.5.14", "0.5.10"),  # the older where nothing newer was measured
}
_KERNELS = {
    ("vllm", "bfloat16"): "vllm_unquantizedfusedmoe_triton_tritonexperts",
    ("vllm", "fp8_block"): "vllm_fp8moe_triton_tritonexperts",
    ("vllm", "fp8"): "vllm_modeloptfp8moe_triton_tritonexperts",
    ("sglang", "bfloat16"): "sglang_fused_moe_triton",
    ("sglang", "fp8_block"): "sglang_fused_moe_triton",
}
_NOT_GATED = ((2688, 1856), (1024, 2688), (4096, 2688))
"""(hidden, inter) of Nemotron's experts, which have no gate; so have those of 5120 with top-22."""
_TIMED_GATED = (("0.5.10", None), ("0.5.14", (1024, 2688)))
"""(version of SGLang, (hidden, inter) or all) that were timed with a gate all the same. The older collector knows no
other; of the newer's the times say so: without it physics is 34 % too fast in fp8_block, with it 4 % off."""
_LIMITED = (7168, 2048, 256, 8)
"""(hidden, inter, experts, top-k) of DeepSeek-V3: choices are limited to 4 of 8 groups, but for the older collector."""
SETS = (
    *((chip, "vllm", dtype) for chip in ("h100_sxm", "h200_sxm", "l40s") for dtype in ("bfloat16", "fp8_block")),
    ("l40s", "vllm", "fp8"),
    *((chip, "sglang", "bfloat16") for chip in ("a100_sxm", "l40s")),
    *(
        (chip, "sglang", dtype)
        for chip in ("h100_sxm", "h200_sxm", "b200", "gb200", "b300", "gb300", "rtx_pro_6000")
        for dtype in ("bfloat16", "fp8_block")
    ),
)
"""(chip, stack, dtype) that aiconfigurator-core 0.12.0 has Triton times of."""


def aiconfigurator_folder() -> Path:
    """Where the installed aiconfigurator-core keeps its systems. Raises UserError if it is not installed."""
    require("aiconfigurator_core", "reading NVIDIA's measured tables")
    spec = importlib.util.find_spec("aiconfigurator_core")
    assert spec is not None
    return Path(next(iter(spec.submodule_search_locations or ()))) / "systems"


def aiconfigurator_rows(chip: GpuChip, stack: str, dtype: str) -> tuple[list[dict[str, Any]], str]:
    """Rows in aiconfigurator's own words, and the version of the stack that was timed.

    Raises:
        UserError: the package is not installed, or has no such rows.
    """
    from pyarrow import compute, parquet

    folder = aiconfigurator_folder() / "data" / system_of(chip) / "moe" / stack
    kernel = _KERNELS.get((stack, dtype))
    for version in _VERSIONS.get(stack, ()):
        path = folder / version / "moe_perf.parquet"
        if kernel is None or not path.exists():
            continue
        table = parquet.read_table(path)
        chosen = compute.and_(compute.equal(table["kernel_source"], kernel), compute.equal(table["moe_dtype"], dtype))
        if rows := table.filter(chosen).to_pylist():
            return rows, version
    raise UserError(
        f"aiconfigurator-core has no Triton times of {chip.name} under {stack} in {dtype}",
        fix="use one of " + ", ".join(" ".join(one) for one in SETS),
    )


def system_of(chip: GpuChip) -> str:
    """aiconfigurator's name of a chip."""
    return _FOLDERS.get(chip.name, chip.name)


def renamed(row: dict[str, Any]) -> dict[str, Any]:
    """A row of aiconfigurator's in the words of `predict`."""
    pair = (row["hidden_size"], row["inter_size"])
    version = row["version"] if row["framework"].lower() == "sglang" else ""
    gated = pair not in _NOT_GATED and (row["inter_size"], row["topk"]) != (5120, 22)
    timed_gated = any(version == of and which in (None, pair) for of, which in _TIMED_GATED)
    limited = (*pair, row["num_experts"], row["topk"]) == _LIMITED and version != "0.5.10"
    return {
        "hidden_size": row["hidden_size"],
        "moe_intermediate_size": row["inter_size"],
        "num_experts": row["num_experts"],
        "num_experts_per_tok": row["topk"],
        "gated": gated or timed_gated,
        "num_tokens": row["num_tokens"],
        "tp": row["moe_tp_size"],
        "ep": row["moe_ep_size"],
        "routing": row["distribution"].replace("power_law_", "power_law:") + ("/8/4" if limited else ""),
        "latency_us": 1e3 * row["latency"],
    }
