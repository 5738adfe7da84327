"""Measured times of whole fused MoE operations, from aiconfigurator-core or a table, and what is dirt in them."""

import importlib.metadata
import importlib.util
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from moe_codesign.chips import Chip
from moe_codesign.cost.fused_moe import bound_us
from moe_codesign.cost.loads import Columns, columns_of
from moe_codesign.cost.table import F64
from moe_codesign.errors import UserError
from moe_codesign.rows import Row, layer_of, text

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


@dataclass(frozen=True)
class Measured:
    """Times of one chip under one stack and type.

    ``shape_key`` [rows]: hidden-inter-experts-topk, by which splits are grouped. ``routing`` [rows]: in the words of
    `predict`. ``left_out``: rows by reason.
    """

    chip: Chip
    stack: str
    dtype: str
    columns: Columns
    latency_us: F64
    shape_key: npt.NDArray[np.str_]
    routing: npt.NDArray[np.str_]
    source: str
    version: str
    left_out: dict[str, int]

    def __len__(self) -> int:
        return len(self.latency_us)

    @property
    def shapes(self) -> int:
        return len(np.unique(self.shape_key))

    def take(self, index: np.ndarray) -> "Measured":
        """These rows."""
        return Measured(
            **{
                **self.__dict__,
                "columns": self.columns.take(index),
                "latency_us": self.latency_us[index],
                "shape_key": self.shape_key[index],
                "routing": self.routing[index],
            }
        )


def from_aiconfigurator(chip: Chip, stack: str, dtype: str) -> Measured:
    """The rows of aiconfigurator-core for a chip, stack and type.

    Raises:
        UserError: the package is not installed, or has no such rows.
    """
    rows, version = aiconfigurator_rows(chip, stack, dtype)
    package = importlib.metadata.version("aiconfigurator-core")
    return _measured(
        chip, stack, dtype, map(renamed, rows), f"aiconfigurator-core {package}", version
    )  # fmt: skip


def aiconfigurator_folder() -> Path:
    """Where the installed aiconfigurator-core keeps its systems. Raises UserError if it is not installed."""
    spec = importlib.util.find_spec("aiconfigurator_core")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("aiconfigurator-core is not installed", mend="pip install aiconfigurator-core")
    return Path(next(iter(spec.submodule_search_locations))) / "systems"


def aiconfigurator_rows(chip: Chip, stack: str, dtype: str) -> tuple[list[dict[str, Any]], str]:
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
        mend="use one of " + ", ".join(" ".join(one) for one in SETS),
    )


def system_of(chip: Chip) -> str:
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


def from_rows(chip: Chip, stack: str, dtype: str, rows: Iterable[Row], source: str) -> Measured:
    """A user's own rows: the columns of `predict` and ``latency_us``; another chip's, stack's or type's are left out.

    Raises:
        UserError: no row is usable.
    """
    return _measured(chip, stack, dtype, rows, source, "")


def _measured(
    chip: Chip,
    stack: str,
    dtype: str,
    rows: Iterable[Row],
    source: str,
    version: str,
) -> Measured:
    left_out: Counter[str] = Counter()
    problems, latency, keys, routing = [], [], [], []
    wanted = {"chip": chip.name, "stack": stack, "dtype": dtype, "op": "fused_moe"}
    for row in rows:
        try:
            if other := next((name for name, value in wanted.items() if _is_another(row, name, value)), None):
                left_out[f"another {other}"] += 1
                continue
            shape, work = layer_of(row, dtype)
            columns_of([(shape, work)])
            time_us = float(row["latency_us"])
        except UserError as error:
            left_out[str(error)] += 1
            continue
        except (KeyError, ValueError, TypeError, OverflowError, MemoryError) as error:
            left_out[f"latency_us or another number is none ({type(error).__name__})"] += 1
            continue
        if not np.isfinite(time_us) or time_us <= 0:
            left_out["no time"] += 1
        else:
            problems.append((shape, work))
            latency.append(time_us)
            routing.append(text(row, "routing", "balanced"))
            keys.append(
                f"{shape.hidden_size}-{shape.moe_intermediate_size}-{shape.num_experts}-{shape.num_experts_per_tok}"
            )
    columns = columns_of(problems)
    times = np.array(latency)
    impossible = times < bound_us(columns, chip, dtype)
    if impossible.any():
        left_out["faster than the physical bound"] = int(impossible.sum())
    if impossible.all():
        reasons = "; ".join(f"{count} {reason}" for reason, count in left_out.most_common(3)) or "it is empty"
        raise UserError(f"{source} has no usable row for {chip.name} {stack} {dtype}: {reasons}")
    labels = np.array(keys), np.array(routing)
    every = Measured(chip, stack, dtype, columns, times, *labels, source, version, dict(left_out))
    return every.take(np.flatnonzero(~impossible))


def _is_another(row: Row, name: str, value: str) -> bool:
    said = text(row, name, value)
    # A chip file's path says nothing of its chip's name.
    return said != value and not (name == "chip" and said.endswith(".toml"))
