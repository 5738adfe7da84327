import csv
import json
import random
from pathlib import Path
from typing import Any

import pytest

import moe_codesign as mc
from moe_codesign import chips
from moe_codesign.answers import problem_table
from moe_codesign.api.predict import Predicted, predict_file
from moe_codesign.errors import UserError
from moe_codesign.formats.columns import OUTPUT
from moe_codesign.formats.table_output import TableOutput
from moe_codesign.formats.tables import read_table

GOOD = {
    "chip": "trainium2",
    "hidden_size": "2048",
    "moe_intermediate_size": "768",
    "num_experts": "128",
    "num_experts_per_tok": "8",
    "num_tokens": "64",
    "dtype": "bfloat16",
}
TILE = {"block_m": 16, "block_n": 64, "block_k": 64, "num_warps": 4, "num_stages": 3}


def test_a_bad_row_is_reported_in_its_own_row() -> None:
    bad = {
        "chip": {"chip": "h200_nvl"},
        "hidden_size": {"hidden_size": "wide"},
        "num_experts_per_tok": {"num_experts_per_tok": "200"},
        "routing": {"routing": "zipf"},
        "dtype": {"dtype": "fp3"},
        "ep": {"ep": "7"},
        "op": {"op": "conv"},
        "stack": {"stack": "tgi"},
        "stack vllm runs Triton": {"stack": "vllm"},
        "n_shared_experts": {"chip": "h100_sxm", "stack": "vllm", "n_shared_experts": "1"},
        "chooses its own tile": {"chip": "h100_sxm", "stack": "vllm", "tile": "{}"},
        "calibrated for op fused_moe": {"chip": "h100_sxm", "stack": "sglang", "op": "grouped_gemm"},
        "no calibration for stack sglang and dtype int8": {"chip": "h100_sxm", "stack": "sglang", "dtype": "int8"},
        "gated": {"gated": "perhaps"},
        "num_tokens": {"num_tokens": ""},
        "tile": {"chip": "h100_sxm", "tile": "{"},
        "seed": {"seed": "-1"},
        "hidden_size ": {"hidden_size": "1e200"},
        "num_experts: got 1000000000000; give at most": {"num_experts": "1e12"},
        "chip ": {"chip": "x" * 5000},
    }
    rows = [GOOD, *({**GOOD, **change} for change in bad.values()), GOOD]
    answered = mc.predict(rows)
    assert answered[0]["latency_us"] == answered[-1]["latency_us"] > 0
    for name, row in zip(bad, answered[1:-1], strict=True):
        assert name.strip() in row["error"], row["error"]
        assert row["latency_us"] is None


def test_rows_keep_their_columns_and_order() -> None:
    rows = [{**GOOD, "note": f"n{i}", "num_tokens": str(2**i)} for i in range(5)]
    answered = mc.predict(rows)
    assert [row["note"] for row in answered] == [f"n{i}" for i in range(5)]
    assert all(set(OUTPUT) <= set(row) for row in answered)
    assert [row["latency_us"] for row in answered] == sorted(row["latency_us"] for row in answered)


def test_a_spreadsheets_byte_order_mark_is_read(tmp_path: Path) -> None:
    file = tmp_path / "excel.csv"
    file.write_text("\ufeff" + ",".join(GOOD) + "\n" + ",".join(GOOD.values()) + "\n", encoding="utf-8")
    assert mc.predict(file)[0]["error"] == ""


def test_a_tile_of_ones_own_and_one_gemm() -> None:
    row = {**GOOD, "chip": "h100_sxm", "tile": json.dumps(TILE)}
    gemm = {"chip": "h100_sxm", "op": "grouped_gemm", "m": 512, "k": 2048, "n": 768, "groups": 8, "tile": TILE}
    layer, single = mc.predict([row, gemm], jobs=2)
    assert layer["error"] == single["error"] == ""
    assert layer["grade"] == single["grade"] == "modelled"
    assert json.loads(layer["tile"])["up"]["block_m"] == 16
    switches = {"split_k": 1, "maxnreg": 255, "persistent": False, "tma": False, "swap_ab": False}
    assert json.loads(single["tile"]) == {**TILE, "group_m": 8, **switches}
    assert single["latency_us"] < layer["latency_us"]


def test_a_stacks_times_stand_beside_our_own_and_can_be_explained() -> None:
    big = {**GOOD, "hidden_size": "4096"}
    rows = [{**big, "chip": chip, "stack": stack} for chip in ("h100_sxm", "b300") for stack in ("vllm", "sglang")]
    answered = mc.predict([*rows, GOOD], explain=True)
    assert [row["error"] for row in answered] == [""] * 5
    assert [row["grade"] for row in answered] == ["modelled"] * 4 + ["datasheet"]
    assert "which has measurements" in answered[2]["warning"]  # vLLM was not timed on a B300
    assert answered[3]["warning"] == ""
    for row in answered[:4]:
        parts = json.loads(row["parts_us"])
        assert sum(parts.values()) == pytest.approx(row["latency_us"], rel=0.01)
        assert row["limiter"] in ("memory", "launch", "compute", "l2", "align")


def test_one_bad_row_of_a_stack_stops_no_other(tmp_path: Path) -> None:
    good = {**GOOD, "chip": "h100_sxm", "stack": "vllm", "hidden_size": "4096"}
    histogram = tmp_path / "loads.json"
    histogram.write_text("[1, 2, 3]")
    rows = [good, {**good, "num_experts": str(2**40)}, {**good, "routing": f"histogram:{histogram}"}, good]
    answered = mc.predict(rows)
    assert answered[0]["latency_us"] == answered[3]["latency_us"] > 0
    assert "give at most 1,000,000" in answered[1]["error"]
    assert "3 entries" in answered[2]["error"]


def test_of_recorded_layers_the_slowest_is_taken_or_the_one_that_is_named(tmp_path: Path) -> None:
    file = tmp_path / "loads.json"
    file.write_text(json.dumps({"logical_count": [[0] * 8, [1] * 8, [1, 0, 0, 0, 0, 0, 0, 1]]}))
    row = {**GOOD, "num_experts": 8, "num_experts_per_tok": 2, "num_tokens": 4}
    routings = ["[1, 1, 1, 1, 1, 1, 1, 1]", "[1, 0, 0, 0, 0, 0, 0, 1]", str(file), f"{file}#2", '{"0": 1, "7": 1}']
    even, few, every, named, by_object = mc.predict([{**row, "routing": f"histogram:{one}"} for one in routings])
    assert even["latency_us"] > 1.3 * few["latency_us"], "eight experts' weights are read, or two experts'"
    assert every["latency_us"] == even["latency_us"]
    assert "layer 1 takes longest" in every["warning"]
    assert named["latency_us"] == few["latency_us"] == by_object["latency_us"]
    assert "layer" not in named["warning"]


def test_a_chip_file_of_ones_own_is_not_taken_for_the_catalogues(tmp_path: Path) -> None:
    mine = tmp_path / "slow.toml"
    text = (Path(chips.__file__).parent / "h100_sxm.toml").read_text()
    mine.write_text(text.replace("hbm_bytes_per_s = 3.35e12", "hbm_bytes_per_s = 1e12"))
    row = {**GOOD, "stack": "vllm", "hidden_size": "4096"}
    fast, slow = mc.predict([{**row, "chip": "h100_sxm"}, {**row, "chip": str(mine)}])
    assert slow["latency_us"] > 2 * fast["latency_us"]


def test_a_gemms_tile_is_in_the_words_of_its_backends_kernels() -> None:
    gemm = {"op": "grouped_gemm", "m": 512, "k": 2048, "n": 768, "groups": 8}
    on_gpu, on_tpu = gemm | {"chip": "h100_sxm"}, gemm | {"chip": "tpu_v6e", "stack": "ragged_dot"}
    mosaic = {"tile_m": 128, "tile_k": 512, "tile_n": 256, "input_buffer_count": 3, "combine_scopes": True}
    triton = {"block_m": 128, "block_k": 64, "block_n": 128, "num_stages": 3, "num_warps": 8, "split_k": None}
    whole = {"tile_m": 128, "tile_k": 2048, "tile_n": 256, "bucket_base": 128}
    answered = mc.predict(
        [on_gpu | {"tile": json.dumps(triton)}, on_tpu | {"tile": mosaic}, on_tpu | {"tile": whole}], jobs=2
    )
    tiles = [json.loads(row["tile"]) for row in answered]
    assert [tiles[0][name] for name in ("block_m", "block_k", "block_n", "num_stages")] == [128, 64, 128, 3]
    assert [tiles[1][name] for name in ("tile_m", "tile_k", "tile_n", "weight_buffers")] == [128, 512, 256, 3]
    assert tiles[2]["tile_k"] >= 2048  # the whole depth in one step
    wrong = {
        "has no tile_k, tile_m, tile_n": on_gpu | {"tile": {"tile_m": 128, "tile_k": 64, "tile_n": 128}},
        "has no block_k, block_m, block_n": on_tpu | {"tile": {"block_m": 128, "block_k": 64, "block_n": 128}},
        # Mosaic's GPU kernel has most of Triton's words, and is another kernel.
        "has no collective, grid_minor_dim": on_gpu | {"tile": triton | {"collective": True, "grid_minor_dim": 0}},
        "block_k, block_n is missing": on_gpu | {"tile": {"block_m": 64}},
        "invalid literal": on_gpu | {"tile": triton | {"block_m": "high"}},
        "bytes of VMEM": on_tpu | {"k": 8192, "n": 8192, "tile": {"tile_m": 512, "tile_k": 8192, "tile_n": 8192}},
    }
    for reason, row in zip(wrong, mc.predict(list(wrong.values())), strict=True):
        assert reason in row["error"], row["error"]
        assert row["latency_us"] is None


def test_the_tile_of_an_untuned_call_can_be_asked_for() -> None:
    row = {**GOOD, "chip": "h100_sxm", "num_tokens": "512"}
    gemm = {"chip": "h100_sxm", "op": "grouped_gemm", "m": 512, "k": 2048, "n": 768, "groups": 8}
    best, default, one_best, one_default, stack, plain = mc.predict(
        [row, row | {"tile": "default"}, gemm, gemm | {"tile": " Default"},
         row | {"stack": "vllm", "tile": "default"}, row | {"stack": "vllm"}]
    )  # fmt: skip
    assert default["error"] == one_default["error"] == ""
    assert default["latency_us"] >= best["latency_us"]
    assert one_default["latency_us"] >= one_best["latency_us"]
    assert default["tile"] != best["tile"]
    assert json.loads(default["tile"]).keys() == {"up", "down"}
    assert stack["latency_us"] == plain["latency_us"]


def table(path: Path, rows: list[dict[str, Any]]) -> Path:
    with TableOutput(path, None, {}) as output:
        output.append(rows)
        output.finish()
    return path


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("into", ["csv", "jsonl", "parquet"])
def test_files_round_trip(tmp_path: Path, kind: str, into: str) -> None:
    problems = table(tmp_path / f"in.{kind}", [GOOD | {"note": "a"}, {**GOOD, "chip": "nope", "note": ""}])
    found = predict_file(problems, tmp_path / f"out.{into}")
    assert found == Predicted(rows=2, failed=1, warned=1, resumed=0)
    rows = read_table(tmp_path / f"out.{into}")
    assert float(rows[0]["latency_us"]) > 0
    assert rows[0]["grade"] == "datasheet"
    assert rows[0]["note"] == "a"
    assert "nope" in rows[1]["error"]
    assert not rows[1]["latency_us"]
    assert {path.name for path in tmp_path.iterdir()} == {problems.name, f"out.{into}"}


def test_columns_of_any_type_come_back(tmp_path: Path) -> None:
    import datetime

    import pyarrow
    from pyarrow import parquet

    row = {**GOOD, "when": datetime.datetime(2026, 1, 2, 3), "tags": ["a", "b"], "num_tokens": 64, "share": 0.5}
    parquet.write_table(pyarrow.Table.from_pylist([row, row | {"share": None}]), tmp_path / "in.parquet")
    for into in ("csv", "jsonl", "parquet"):
        assert predict_file(tmp_path / "in.parquet", tmp_path / f"out.{into}").failed == 0
        first, second = read_table(tmp_path / f"out.{into}")
        assert str(first["when"]).startswith("2026-01-02")
        assert float(first["share"]) == 0.5
        assert second["share"] in (None, "")


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_csv_of_any_spreadsheet_is_read(tmp_path: Path, separator: str, mark: str) -> None:
    lines = [separator.join(GOOD), separator.join(GOOD.values()), ""]
    (tmp_path / "in.csv").write_text(mark + "\r\n".join(lines), encoding="utf-8")
    assert [row["error"] for row in mc.predict(tmp_path / "in.csv")] == [""]


def test_a_line_of_json_ends_with_a_line_feed_alone(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(
        "\n".join(json.dumps({**GOOD, "note": f"a{mark}b"}, ensure_ascii=False) for mark in "\u2028\u2029\x85"), "utf-8"
    )
    answered = mc.predict(tmp_path / "in.jsonl")
    assert [row["error"] for row in answered] == [""] * 3
    assert answered[0]["note"] == "a\u2028b"


def test_a_row_that_cannot_be_read_is_an_error_of_its_own(tmp_path: Path) -> None:
    good = json.dumps(GOOD)
    (tmp_path / "in.jsonl").write_text("\n".join([good, "{", "[1]", good, "[" * 100_000, ""]))
    answered = mc.predict(tmp_path / "in.jsonl")
    assert [bool(row["error"]) for row in answered] == [False, True, True, False, True]
    assert answered[1]["error"].startswith("line 2 is not JSON")
    assert answered[2]["error"] == "line 3 holds no JSON object"
    (tmp_path / "in.csv").write_text(
        ",".join(GOOD) + "\n" + ",".join(GOOD.values()) + ",a,b\n" + ",".join(list(GOOD.values())[:3]) + "\n"
        + ",".join(GOOD.values()) + "\n"
    )  # fmt: skip
    long, short, whole = mc.predict(tmp_path / "in.csv")
    assert "line 2 has 2 cells more than there are headers" in long["error"]
    assert "num_experts is empty" in short["error"]
    assert whole["error"] == ""


@pytest.mark.parametrize("text", ["", "\n\n", "chip,num_tokens\n"])
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_table_without_rows_is_an_error(tmp_path: Path, text: str, kind: str) -> None:
    if kind == "jsonl" and "," in text:
        return
    (tmp_path / f"in.{kind}").write_text(text)
    with pytest.raises(UserError, match="holds no rows"):
        predict_file(tmp_path / f"in.{kind}", tmp_path / "out.csv")


def many(path: Path, rows: int) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(GOOD)
        for tokens in range(1, rows + 1):
            writer.writerow({**GOOD, "num_tokens": tokens if tokens % 1000 else "none"}.values())
    return path


@pytest.mark.parametrize("into", ["csv", "parquet"])
def test_a_run_that_was_cut_off_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, into: str) -> None:
    monkeypatch.setattr(problem_table, "PART", 500)
    problems, out = many(tmp_path / "in.csv", 2200), tmp_path / f"out.{into}"
    done: list[int] = []

    def stop(rows: int, of: int) -> None:
        done.append(rows)
        if rows >= 1500:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_file(problems, out, running=stop)
    assert not out.exists()
    partial = tmp_path / f"out.{into}.partial"
    with partial.open("ab") as file:
        file.write(b"half a row")
    found = predict_file(problems, out)
    assert found == Predicted(rows=2200, failed=2, warned=2198, resumed=1000)
    assert [str(row["num_tokens"]) for row in read_table(out)] == [
        str(row["num_tokens"]) for row in read_table(problems)
    ]
    whole = predict_file(problems, tmp_path / "whole.csv")
    assert (whole.rows, whole.failed, whole.resumed) == (2200, 2, 0)
    rows, again = read_table(out), read_table(tmp_path / "whole.csv")
    assert [str(row["latency_us"] or "") for row in rows] == [row["latency_us"] for row in again]


def test_what_was_cut_off_is_not_taken_for_another_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(problem_table, "PART", 100)
    problems = many(tmp_path / "in.csv", 300)

    def stop(rows: int, of: int) -> None:
        if rows == 200:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_file(problems, tmp_path / "out.csv", running=stop)
    assert predict_file(problems, tmp_path / "out.csv", explain=True).resumed == 0
    assert "parts_us" in read_table(tmp_path / "out.csv")[0]


def test_child_processes_answer_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(problem_table, "PART", 100)
    problems = many(tmp_path / "in.csv", 1050)
    seen: list[tuple[int, int]] = []
    found = predict_file(problems, tmp_path / "two.csv", jobs=2, running=lambda done, of: seen.append((done, of)))
    predict_file(problems, tmp_path / "one.csv")
    assert found == Predicted(rows=1050, failed=1, warned=1049, resumed=0)
    assert (tmp_path / "two.csv").read_bytes() == (tmp_path / "one.csv").read_bytes()
    assert seen[-1] == (1050, 1050)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_bad_files_are_reported_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"use .csv, .jsonl or .parquet"):
        mc.predict(tmp_path / "in.csv", out=tmp_path / "out.txt")
    with pytest.raises(UserError, match="cannot be read"):
        mc.predict(tmp_path / "missing.csv")
    (tmp_path / "twice.csv").write_text("chip,tp,tp\na,1,2\n")
    with pytest.raises(UserError, match="has the column 'tp' twice"):
        mc.predict(tmp_path / "twice.csv")


def test_every_shape_in_the_catalogue_has_a_roofline(tmp_path: Path) -> None:
    from moe_codesign.models import models

    file = tmp_path / "all.csv"
    with file.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow([*GOOD, "gated"])
        for shape in models().values():
            sizes = (shape.hidden_size, shape.moe_intermediate_size, shape.num_experts, shape.num_experts_per_tok)
            writer.writerow(["trainium2", *sizes, 128, "bfloat16", shape.gated])
    assert all(row["error"] == "" for row in mc.predict(file))


def test_values_may_be_spelt_as_people_do() -> None:
    plain = {**GOOD, "chip": "h100_sxm", "dtype": "bfloat16"}
    spelt = {**plain, "chip": "NVIDIA H100 80GB HBM3", "dtype": "torch.bfloat16"}
    first, second = mc.predict([plain, spelt])
    assert first["latency_us"] == second["latency_us"] > 0
    (other,) = mc.predict([{**plain, "dtype": "NVFP4"}])
    assert "no kernel here has" in other["error"]


def _long_table(path: Path, rows: list[dict[str, Any]]) -> None:
    columns = ["id", "chip", "op", "stack", "dtype", "routing", "seed", "hidden_size", "moe_intermediate_size",
               "num_experts", "num_experts_per_tok", "num_tokens", "tp", "ep"]  # fmt: skip
    lines = [",".join(columns), *(",".join(str(row.get(name, "")) for name in columns) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_a_malformed_row_among_thousands_says_why_and_the_others_are_unaffected(tmp_path: Path) -> None:
    rng = random.Random(0)
    good: list[dict[str, Any]] = [
        {
            "id": number,
            "chip": "h100_sxm",
            "stack": "vllm",
            "dtype": rng.choice(["bfloat16", "fp8_block"]),
            "hidden_size": rng.choice([2048, 4096]),
            "moe_intermediate_size": 1024,
            "num_experts": rng.choice([64, 128, 256]),
            "num_experts_per_tok": rng.choice([4, 8]),
            "num_tokens": rng.randint(1, 65536),
            "tp": rng.choice([1, 2]),
            "ep": rng.choice([1, 4]),
        }
        for number in range(2000)
    ]
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"num_tokens": "12x"}, "num_tokens: got '12x'; give a whole number"),
        ({"num_tokens": "1e300"}, "num_tokens: got '1e300'; give a whole number from 0 to"),
        ({"num_tokens": -1}, "num_tokens: got '-1'; give a whole number from 0 to"),
        ({"num_tokens": 0}, "num_tokens: got 0; give a whole number of at least 1"),
        ({"hidden_size": ""}, "column hidden_size is empty"),
        ({"chip": "h1000"}, "h1000"),
        ({"chip": "tpu_v6e"}, "stack vllm runs Triton kernels"),
        ({"dtype": "fp7"}, "dtype: got 'fp7'; use one of"),
        ({"dtype": "mxfp4"}, "no calibration for stack vllm and dtype mxfp4"),
        ({"stack": "tgi"}, "stack: got 'tgi'; use ours"),
        ({"op": "attention"}, "op: got 'attention'; use fused_moe"),
        ({"routing": "zipf"}, "routing: got 'zipf'; use balanced"),
        ({"seed": "first"}, "seed: got 'first'; give a whole number"),
        ({"tp": 3}, "moe_intermediate_size 1024 is not a multiple of tp 3"),
        ({"ep": 7}, "is not a multiple of ep 7"),
        ({"dtype": "fp8_block", "tp": 16}, "scale block"),
        ({"num_experts_per_tok": 300}, "num_experts_per_tok: got 300; a token cannot visit more"),
        ({"id": "3,4", "ep": "1"}, "1 cells more than there are headers"),
    ]
    rows = list(good)
    reasons = {100 * n + 7: reason for n, (_, reason) in enumerate(wrong)}
    for place, (change, _) in zip(reasons, wrong, strict=True):
        rows[place] = {**rows[place], **change}
    _long_table(tmp_path / "good.csv", good)
    _long_table(tmp_path / "rows.csv", rows)
    alone = mc.predict(tmp_path / "good.csv")
    predicted = predict_file(tmp_path / "rows.csv", tmp_path / "out.csv")
    answered = read_table(tmp_path / "out.csv")
    assert (predicted.rows, predicted.failed) == (2000, len(wrong))
    assert len(answered) == 2000
    for place, (row, undisturbed) in enumerate(zip(answered, alone, strict=True)):
        if place in reasons:
            assert reasons[place] in row["error"], (place, row)
            assert row["latency_us"] == ""
        else:
            assert row == {name: str(value) if value is not None else "" for name, value in undisturbed.items()}
