"""NVIDIA's tables of measured operations: which version is taken, and how rows are read."""

from pathlib import Path

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from moe_codesign.cost.operations.families import OPERATIONS
from moe_codesign.errors import UserError
from moe_codesign.fitting.operation_rows import SOURCES, Rows, rows_of
from moe_codesign.formats.aisimulate import data_folder, version_order


def source(operation: str, table: str = "") -> "object":
    return next(one for one in SOURCES if one.operation == operation and table in one.table)


def write(folder: Path, path: str, rows: list[dict[str, object]]) -> None:
    place = folder / "aisimulate_core" / "systems" / "data" / path
    place.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows), place)


def read(folder: Path, chip: str, stack: str, operation: str, table: str = "") -> dict[str, tuple[list[str], Rows]]:
    return rows_of(data_folder(folder), chip, stack, source(operation, table))  # type: ignore[arg-type]


def gemm(m: int, latency_ms: float, kernel: str = "one") -> dict[str, object]:
    return {"gemm_dtype": "bfloat16", "m": m, "n": 512, "k": 256, "latency": latency_ms, "kernel_source": kernel}


def test_releases_are_in_order() -> None:
    versions = ["1.3.0rc9", "1.3.0rc20", "1.3.0", "1.3.0.post1", "1.10.0", "0.5.6.post2"]
    ordered = sorted(versions, key=version_order)
    assert ordered == ["0.5.6.post2", "1.3.0rc9", "1.3.0rc20", "1.3.0", "1.3.0.post1", "1.10.0"]


def test_the_newest_version_with_rows_enough_in_a_graph_is_taken(tmp_path: Path) -> None:
    write(tmp_path, "b200_sxm/gemm/vllm/0.24.0/gemm_perf.parquet", [gemm(m, 0.002 * m) for m in range(1, 11)])
    write(tmp_path, "b200_sxm/gemm/vllm/0.25.0/gemm_perf.parquet", [gemm(m, 0.080 + 0.002 * m) for m in range(1, 11)])
    write(tmp_path, "b200_sxm/gemm/vllm/0.31.0/gemm_perf.parquet", [gemm(m, 0.001 * m) for m in range(1, 3)])
    ((passed, rows),) = read(tmp_path, "b200", "vllm", "dense_gemm").values()
    assert rows.version == "0.24.0"
    assert passed == ["0.31.0: 2 rows of 10", "0.25.0: not in a CUDA graph, 82 us at least"]
    assert rows.latency_us == pytest.approx(2.0 * np.arange(1, 11))


def test_of_several_kernels_the_fastest_counts(tmp_path: Path) -> None:
    write(
        tmp_path,
        "h100_sxm/gemm/sglang/0.5.14/gemm_perf.parquet",
        [gemm(8, 0.005, "slow"), gemm(8, 0.004, "fast"), gemm(16, 0.006, "slow"), gemm(32, -1.0)],
    )
    ((_, rows),) = read(tmp_path, "h100_sxm", "sglang", "dense_gemm").values()
    assert rows.latency_us.tolist() == [4.0, 6.0]
    assert rows.left_out == {"no time": 1, "another kernel was faster": 1}


def test_layers_are_counted_by_their_busiest_rank(tmp_path: Path) -> None:
    row = {
        "moe_dtype": "fp8_block", "kernel_source": "deepgemm", "num_tokens": 64, "hidden_size": 512, "inter_size": 256,
        "topk": 4, "num_experts": 16, "moe_tp_size": 1, "moe_ep_size": 4, "distribution": "balanced", "latency": 0.1,
    }  # fmt: skip
    unlike = {**row, "moe_ep_size": 3}
    write(tmp_path, "h200_sxm/moe/trtllm/1.3.0rc20/moe_perf.parquet", [row, unlike])
    ((_, rows),) = read(tmp_path, "h200_sxm", "trtllm", "fused_moe").values()
    assert len(rows) == 1
    assert rows.sizes["rows"].tolist() == [64.0]
    assert rows.sizes["local_experts"].tolist() == [4.0]
    assert rows.sizes["up_width"].tolist() == [512.0]
    assert OPERATIONS["fused_moe"].shape_key(rows.sizes) == ["512-256-16-4"]


def test_dispatch_and_combine_are_told_apart_by_mode(tmp_path: Path) -> None:
    row = {
        "comm_dtype": "bfloat16", "ep_size": 8, "num_tokens": 16, "hidden_size": 7168, "topk": 8, "num_experts": 256,
        "kernel_source": "deepep", "latency": 40.0,
    }  # fmt: skip
    modes = ("trtllm_deepep_ht", "trtllm_deepep_ll")
    rows = [{**row, "comm_backend": mode, "phase": phase} for mode in modes for phase in ("dispatch", "combine")]
    write(tmp_path, "h200_sxm/comm/trtllm/1.3.0rc11/moe_a2a_perf.parquet", rows)
    found = read(tmp_path, "h200_sxm", "trtllm", "all_to_all", "moe_a2a")
    assert set(found) == {f"{phase}/{mode}" for phase in ("dispatch", "combine") for mode in ("normal", "low_latency")}
    assert all(one.latency_us.tolist() == [40.0] for _, one in found.values())


def test_another_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give the folder of an unpacked wheel"):
        data_folder(tmp_path)
