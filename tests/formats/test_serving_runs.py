"""Measured runs of whole models: splits that are put right, rows that are left out, and why."""

from pathlib import Path

import pytest

from moe_codesign.domain.deployment import ModelSplit
from moe_codesign.errors import UserError
from moe_codesign.fitting.serving import usable_runs
from moe_codesign.formats.serving_runs import family_of, read_runs

HEADER = (
    "mode", "model_path", "system", "backend", "backend_version", "precision", "isl", "osl", "batch_size", "tp_size",
    "pp_size", "attention_dp_size", "moe_tp_size", "moe_ep_size", "concurrency", "silicon_ttft_ms", "silicon_tpot_ms",
)  # fmt: skip
ROW = {
    "mode": "agg", "model_path": "Qwen/Qwen3-235B-A22B-FP8", "system": "b200_sxm", "backend": "sglang",
    "backend_version": "0.5.9", "precision": "fp8", "isl": "1024", "osl": "8192", "batch_size": "16.0",
    "tp_size": "8.0", "pp_size": "1.0", "attention_dp_size": "", "moe_tp_size": "8.0", "moe_ep_size": "0.0",
    "concurrency": "16.0", "silicon_ttft_ms": "200.5", "silicon_tpot_ms": "12.5",
}  # fmt: skip


def table(folder: Path, *rows: dict[str, str]) -> Path:
    path = folder / "runs.csv"
    lines = [",".join(HEADER), *(",".join({**ROW, **row}[name] for name in HEADER) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_row_is_a_run(tmp_path: Path) -> None:
    runs, left_out = read_runs(table(tmp_path, {}))
    assert not left_out
    (run,) = runs
    assert (run.model, run.chip, run.precision) == ("Qwen/Qwen3-235B-A22B", "b200", "fp8")
    assert run.split == ModelSplit(tp=8, moe_tp=8)
    assert (run.requests, run.isl, run.osl, run.tpot_ms, run.ttft_ms) == (16, 1024, 8192, 12.5, 200.5)


@pytest.mark.parametrize(
    ("listed", "meant"),
    [
        (("64", "1", "8", "8"), ModelSplit(tp=8, ep=8)),
        (("16", "1", "4", "4"), ModelSplit(tp=4, ep=4)),
        (("1", "64", "8", "8"), ModelSplit(dp=8, ep=8)),
        (("4", "1", "2", "2"), ModelSplit(tp=2, ep=2)),
        (("8", "1", "2", "4"), ModelSplit(tp=8, moe_tp=2, ep=4)),
    ],
)
def test_a_split_that_multiplies_a_size_with_itself_is_put_right(
    tmp_path: Path, listed: tuple[str, str, str, str], meant: ModelSplit
) -> None:
    names = ("tp_size", "attention_dp_size", "moe_tp_size", "moe_ep_size")
    (run,), _ = read_runs(table(tmp_path, dict(zip(names, listed, strict=True))))
    assert run.split == meant


def test_rows_that_are_no_usable_run_are_counted_by_reason(tmp_path: Path) -> None:
    runs, left_out = read_runs(
        table(
            tmp_path,
            {"mode": "disagg"},
            {"moe_tp_size": "2"},
            {"tp_size": "72", "moe_tp_size": "72"},
            {"silicon_tpot_ms": ""},
        )
    )
    assert not runs
    assert left_out == {
        "prefill and decode on chips of their own": 1,
        "attention and experts on unlike numbers of chips": 1,
        "a number of chips that no server has": 1,
        "no time": 1,
    }


def test_a_run_that_is_listed_under_two_names_is_one(tmp_path: Path) -> None:
    names = [{"model_path": f"deepseek-ai/DeepSeek-{name}"} for name in ("V3", "R1")]
    runs, left_out = read_runs(table(tmp_path, *names))
    assert [run.model for run in runs] == ["deepseek-ai/DeepSeek-V3"]
    assert left_out == {"listed twice": 1}


def test_a_run_that_is_faster_than_with_fewer_requests_is_broken(tmp_path: Path) -> None:
    times = {"8": "10.0", "16": "9.0", "64": "20.0", "512": "5.0"}
    rows = [{"concurrency": requests, "silicon_tpot_ms": time} for requests, time in times.items()]
    runs, left_out = read_runs(table(tmp_path, *rows, {"concurrency": "512", "isl": "8192", "silicon_tpot_ms": "5.0"}))
    assert sorted((run.isl, run.requests) for run in runs) == [(1024, 8), (1024, 16), (1024, 64), (8192, 512)]
    assert left_out == {"faster than the same deployment with fewer requests": 1}


def test_families_that_are_held_out_and_runs_that_may_be_speculative_are_in_no_fit(tmp_path: Path) -> None:
    held = ("MiniMaxAI/MiniMax-M2.5", "moonshotai/Kimi-K2.5", "zhipuai/GLM-5")
    runs, _ = read_runs(
        table(
            tmp_path,
            *({"model_path": name} for name in held),
            {"model_path": "deepseek-ai/DeepSeek-R1", "backend": "trtllm"},
            {"model_path": "deepseek-ai/DeepSeek-R1", "silicon_tpot_ms": "9"},
        )
    )
    kept, left_out = usable_runs(runs)
    assert [(run.model, run.stack) for run in kept] == [("deepseek-ai/DeepSeek-R1", "sglang")]
    assert left_out == {"of a family that is kept for acceptance": 3, "perhaps with multi-token prediction": 1}
    assert [family_of(name) for name in ("Qwen/Qwen3.5-397B-A17B", "openai/gpt-oss-120b")] == ["qwen3.5", "gpt"]


def test_a_table_of_something_else_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="lacks a column"):
        read_runs(tmp_path / "other.csv")
