"""Tuned files of vLLM and SGLang: what each says of which problem, and why another says nothing."""

import json
from pathlib import Path
from typing import Any

import pytest

import moe_codesign as mc

TILE = {"BLOCK_SIZE_M": 64, "BLOCK_SIZE_N": 128, "BLOCK_SIZE_K": 64, "GROUP_SIZE_M": 8, "num_warps": 8, "num_stages": 3}
ROW = {
    "chip": "h100_sxm", "stack": "vllm", "hidden_size": 2048, "moe_intermediate_size": 768, "num_experts": 128,
    "num_experts_per_tok": 8, "num_tokens": 64,
}  # fmt: skip
STEM = "E=128,N=768,device_name=NVIDIA_H100_80GB_HBM3"
BLOCKS = ",dtype=fp8_w8a8,block_shape=[128, 128]"


def write(folder: Path, name: str, **changes: Any) -> None:
    entry = {key: value for key, value in (TILE | changes).items() if value is not None}
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps({"triton_version": "3.7.1", "64": entry, "4096": entry}))


def predict(folder: Path, **changes: Any) -> dict[str, Any]:
    (row,) = mc.predict([ROW | changes], tuned=folder)
    return row


def tile(row: dict[str, Any]) -> dict[str, int]:
    found: dict[str, int] = json.loads(row["tile"])
    return found


def test_a_row_says_which_file_and_entry_it_used(tmp_path: Path) -> None:
    write(tmp_path, STEM)
    assert tile(row := predict(tmp_path)) == TILE
    assert f"tuned file {STEM}.json, entry 64" in row["warning"]
    assert f"tuned file {STEM}.json, entry 4096" in predict(tmp_path, num_tokens=9000)["warning"]


def test_a_row_without_a_file_says_so_and_who_has_one(tmp_path: Path) -> None:
    write(tmp_path, STEM.replace("H100_80GB_HBM3", "H100_PCIe"))
    row = predict(tmp_path)
    assert tile(row) == tile(mc.predict([ROW])[0])
    assert "no tuned file for E=128,N=768" in row["warning"]
    assert f"{tmp_path.name} has it for NVIDIA_H100_PCIe" in row["warning"]
    assert "has it for" not in predict(tmp_path, num_experts=64)["warning"]


@pytest.mark.parametrize(
    ("chip", "device"),
    [("h100_sxm", "NVIDIA_H100"), ("mi355x", "AMD_Instinct_MI355X"), ("mi355x", "AMD_Instinct_MI355_OAM"),
     ("mi300x", "AMD_Instinct_MI300X_OAM")],
)  # fmt: skip
def test_a_device_has_several_names(tmp_path: Path, chip: str, device: str) -> None:
    write(tmp_path, f"E=128,N=768,device_name={device}")
    assert "entry 64" in predict(tmp_path, chip=chip)["warning"]


def test_the_usual_name_and_the_latest_version_come_first(tmp_path: Path) -> None:
    write(tmp_path, "E=128,N=768,device_name=NVIDIA_H100", BLOCK_SIZE_N=32)
    for version, width in (("triton_3_1_0", 64), ("triton_3_10_0", 128), ("triton_3_9_0", 256)):
        write(tmp_path / version, STEM, BLOCK_SIZE_N=width)
    assert tile(predict(tmp_path))["BLOCK_SIZE_N"] == 128


def test_a_tile_that_cannot_be_launched_has_no_time(tmp_path: Path) -> None:
    write(tmp_path, STEM, BLOCK_SIZE_M=128, BLOCK_SIZE_N=256, BLOCK_SIZE_K=256, num_stages=5)
    row = predict(tmp_path)
    assert "needs 786432 bytes of shared memory, h100_sxm has 232448" in row["error"]
    assert row["latency_us"] is None
    assert predict(tmp_path, num_experts=64)["error"] == ""


def test_fields_that_a_file_leaves_out_are_tritons(tmp_path: Path) -> None:
    write(tmp_path, STEM, num_warps=None, num_stages=None)
    found = tile(predict(tmp_path, stack="sglang"))
    assert (found["num_warps"], found["num_stages"]) == (4, 3)


def test_eight_rows_are_a_tile(tmp_path: Path) -> None:
    write(tmp_path, STEM, BLOCK_SIZE_M=8)
    assert tile(row := predict(tmp_path))["BLOCK_SIZE_M"] == 8
    assert row["error"] == ""


def test_the_second_gemm_may_have_a_file_of_its_own(tmp_path: Path) -> None:
    write(tmp_path, STEM)
    one = predict(tmp_path, stack="sglang", num_tokens=4096)
    write(tmp_path, f"{STEM}_down", BLOCK_SIZE_N=32)
    two = predict(tmp_path, stack="sglang", num_tokens=4096)
    assert f"{STEM}_down.json, entry 4096" in two["warning"]
    assert two["latency_us"] != one["latency_us"]
    write(tmp_path, f"{STEM}_down", BLOCK_SIZE_M=16)
    assert "share BLOCK_SIZE_M, these have 64 and 16" in predict(tmp_path, stack="sglang")["error"]


def test_a_depth_over_the_scale_block_is_cut_or_refused(tmp_path: Path) -> None:
    write(tmp_path, STEM + BLOCKS, BLOCK_SIZE_K=256)
    fp8 = {"dtype": "fp8_block"}
    assert "BLOCK_SIZE_K 256 runs as 128" in (long := predict(tmp_path, **fp8))["warning"]
    write(tmp_path, STEM + BLOCKS, BLOCK_SIZE_K=128)
    assert predict(tmp_path, **fp8)["latency_us"] == long["latency_us"]
    write(tmp_path, STEM + BLOCKS, BLOCK_SIZE_K=256)
    assert "spans more than one" in predict(tmp_path, stack="sglang", **fp8)["error"]


@pytest.mark.parametrize(
    "name",
    [f"{STEM},dtype=fp8_w8a8,per_channel_quant=True", f"{STEM},dtype=int4_w4a16,backend=flydsl",
     f"{STEM},dtype=int8_w8a8", f"{STEM}{BLOCKS.replace('128', '64')}"],
)  # fmt: skip
def test_files_of_other_kernels_and_types_are_passed_over(tmp_path: Path, name: str) -> None:
    write(tmp_path, name)
    for dtype in ("bfloat16", "fp8_block"):
        row = predict(tmp_path, dtype=dtype)
        assert row["error"] == ""
        assert "no tuned file" in row["warning"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [("{", "Expecting property name"), ("[]", "no attribute"), ("{}", "it has no entry"),
     ('{"64": {"BLOCK_SIZE_M": 64}}', "an entry has no 'BLOCK_SIZE_N'"),
     (json.dumps({"64": TILE | {"BLOCK_SIZE_M": 48}}), "BLOCK_SIZE_M = 48; use one of 8, 16"),
     (json.dumps({"64": TILE | {"num_warps": 0}}), "is no tile")],
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_an_error_of_its_own_problems(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / f"{STEM}.json").write_text(text)
    assert f"tuned file {STEM}.json" in (row := predict(tmp_path))["error"]
    assert reason in row["error"]
    assert predict(tmp_path, num_experts=64)["error"] == ""
