"""Fitting from times that are known to the last digit, dirt in them, few of them; files that come and go."""

import csv
import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import catboost
import numpy as np
import pytest

import moe_codesign as mc
import moe_codesign.chips
from moe_codesign import extras
from moe_codesign.calibrations.catalogue import SHIPPED
from moe_codesign.calibrations.stacks import FORMAT, StackCoefficients
from moe_codesign.chips import GpuChip, load_chip
from moe_codesign.cost.stacks import physics as fused_moe
from moe_codesign.cost.stacks import shipped
from moe_codesign.cost.stacks.columns import columns_of
from moe_codesign.cost.stacks.conventions import Conventions, timed_terms
from moe_codesign.cost.stacks.features import INPUTS, features
from moe_codesign.cost.stacks.physics import bound_us
from moe_codesign.domain.routing import parse_routing
from moe_codesign.domain.shape import MoEShape
from moe_codesign.domain.workload import Workload
from moe_codesign.errors import UserError
from moe_codesign.fitting import stacks as fit
from moe_codesign.fitting.intervals import errors
from moe_codesign.fitting.measured import Measured, from_rows
from moe_codesign.fitting.splits import in_test_split
from moe_codesign.fitting.stack_conventions import fit_physics
from moe_codesign.fitting.stacks import calibrate, calibrate_split
from moe_codesign.fitting.trees import learn_by_shape
from moe_codesign.formats.aiconfigurator import renamed

TRUTH = dataclasses.replace(StackCoefficients(), matrix=1.6, memory=1.05, launch_us=22.0, l2=0.7)
CHIP = "h100_sxm"


def rows(*, noise: float = 0.02, bend: float = 0.0, shapes: int = 20) -> list[dict[str, object]]:
    """Times of the true coefficients, times a smooth bend that no coefficient has, times noise."""
    rng = np.random.default_rng(0)
    problems, table = [], []
    for _ in range(shapes):
        hidden, width = 256 * int(rng.integers(4, 32)), 256 * int(rng.integers(1, 16))
        experts, top_k = 8 * 2 ** int(rng.integers(0, 6)), int(rng.integers(1, 9))
        for tokens in (1, 4, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192):
            for tp in (1, 2, 4):
                for routing in ("balanced", "uniform"):
                    shape = MoEShape(
                        hidden_size=hidden, moe_intermediate_size=width, num_experts=experts, num_experts_per_tok=top_k
                    )
                    load = Workload(name="w", num_tokens=tokens, tp=tp, routing=parse_routing(routing))
                    problems.append((shape, load))
                    table.append(
                        {
                            "hidden_size": hidden, "moe_intermediate_size": width, "num_experts": experts,
                            "num_experts_per_tok": top_k, "num_tokens": tokens, "tp": tp, "routing": routing,
                        }
                    )  # fmt: skip
    columns = columns_of(problems)
    chip = GpuChip.of(load_chip(CHIP))
    least = bound_us(columns, chip, "bfloat16") * 1.001
    _, t = timed_terms(TRUTH, Conventions(), columns, chip, "vllm", "bfloat16")
    times = np.maximum(fused_moe.total_us(TRUTH, t), least) * np.exp(bend * np.sin(np.log(columns.width)))
    times = np.maximum(times * np.exp(noise * np.abs(rng.standard_normal(len(times)))), least)
    return [{**row, "latency_us": float(time)} for row, time in zip(table, times, strict=True)]


def measured(**options: float) -> Measured:
    return from_rows(GpuChip.of(load_chip(CHIP)), "vllm", "bfloat16", rows(**options), "made up")  # type: ignore[arg-type]


def test_physics_is_found_again_from_its_own_times() -> None:
    data = measured(noise=0.0)
    x, conventions = fit_physics(data)
    assert conventions == Conventions()
    _, t = timed_terms(x, conventions, data.columns, data.chip, data.stack, data.dtype)
    assert errors(fused_moe.total_us(x, t), data.latency_us)[0] < 2.0
    assert x.launch_us == pytest.approx(22.0, rel=0.1)


@pytest.mark.slow
def test_the_correction_is_kept_where_it_helps_on_held_out_shapes() -> None:
    data = measured(bend=0.3)
    held = in_test_split(data.shape_key)
    assert 0 < held.sum() < len(held)
    fitted, test = (data.take(np.flatnonzero(rows)) for rows in (~held, held))
    judged = calibrate(fitted, test=test).file.held_out
    assert judged is not None
    assert judged.mape < 0.8 * judged.physics_mape
    assert judged.interval_coverage > 80


def test_splits_never_share_a_shape_and_do_not_depend_on_the_rows() -> None:
    keys = np.array([f"{h}-1024-64-8" for h in range(1000) for _ in range(2)])
    held = in_test_split(keys)
    assert (held[::2] == held[1::2]).all()
    assert 150 < held[::2].sum() < 250
    assert in_test_split(np.array(["7168-2048-384-8"]))[0]
    assert not in_test_split(np.array(["7168-2048-256-8"]))[0]


def test_twenty_rows_narrow_what_a_donor_says() -> None:
    donor = shipped.find(GpuChip.of(load_chip(CHIP)), "sglang", "bfloat16").value
    data = measured(noise=0.01)
    few = data.take(np.random.default_rng(1).choice(len(data), 20, replace=False))
    found = calibrate(few, donor)
    assert found.file.rows == 20
    before = errors(donor.predict(data.chip, data.columns).latency_us, data.latency_us)[0]
    after = errors(found.predict(data.chip, data.columns).latency_us, data.latency_us)[0]
    assert after < 0.7 * before


def test_dirt_is_left_out_and_counted() -> None:
    table = rows(shapes=4)
    bad: list[dict[str, object]] = [
        {**table[0], "latency_us": 1e-3},
        {**table[1], "latency_us": "nan"},
        {**table[2], "hidden_size": "wide"},
        {**table[3], "n_shared_experts": 1},
        {**table[4], "latency_us": ""},
    ]
    data = from_rows(GpuChip.of(load_chip(CHIP)), "vllm", "bfloat16", [*table, *bad], "made up")
    assert len(data) == len(table)
    assert not data.unnamed_routing.any()
    assert data.left_out == {
        "no time": 1,
        "hidden_size: got 'wide'; give a whole number": 1,
        "n_shared_experts: got 1; a stack runs them apart from its fused op; give 0": 1,
        "latency_us or another column is not a number (ValueError)": 1,
        "faster than the physical bound": 1,
    }
    with pytest.raises(UserError, match="no usable row"):
        from_rows(GpuChip.of(load_chip(CHIP)), "vllm", "bfloat16", bad[1:], "made up")


@pytest.mark.slow
def test_a_table_of_ones_own_from_the_shell_to_predict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from moe_codesign.cli import main

    monkeypatch.setenv("MOE_CODESIGN_CALIBRATIONS", str(tmp_path / "own"))
    path = tmp_path / "times.csv"
    table = rows(shapes=12)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)
    problem = {**table[40], "chip": CHIP, "stack": "vllm"}
    before = mc.predict([problem])[0]
    with pytest.raises(SystemExit, match="0"):
        main(["calibrate", "--chip", CHIP, "--stack", "vllm", "--from", str(path)])
    assert "rows that it has not seen" not in (said := capsys.readouterr().out)
    assert "shapes that it has not seen" in said
    after = mc.predict([problem])[0]
    truth = float(str(table[40]["latency_us"]))
    assert abs(after["latency_us"] / truth - 1) < abs(before["latency_us"] / truth - 1)
    assert abs(after["latency_us"] / truth - 1) < 0.1


def test_rows_that_name_no_routing_are_counted_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from moe_codesign.cli import main

    monkeypatch.setenv("MOE_CODESIGN_CALIBRATIONS", str(tmp_path / "own"))
    table = rows()[1::24]  # of uniform routing
    unnamed = [{k: v for k, v in row.items() if k != "routing"} for row in table[:3]] + [{**table[3], "routing": ""}]
    path = tmp_path / "times.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*unnamed, *table[4:]]))
    arguments = ["calibrate", "--chip", CHIP, "--stack", "vllm", "--from", str(path)]
    with pytest.raises(SystemExit, match="0"):
        main(arguments)
    said = "4 rows name no routing and were read as uniform; a column routing says another"
    assert said in capsys.readouterr().out.splitlines()
    with pytest.raises(SystemExit, match="0"):
        main([*arguments, "--json"])
    assert json.loads(capsys.readouterr().out)["unnamed_routing"] == 4
    path.write_text("".join(json.dumps(row) + "\n" for row in table))
    with pytest.raises(SystemExit, match="0"):
        main(arguments)
    assert "name no routing" not in capsys.readouterr().out


@pytest.mark.slow
def test_files_round_trip_and_a_broken_one_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOE_CODESIGN_CALIBRATIONS", str(tmp_path))
    chip = GpuChip.of(load_chip(CHIP))
    found = calibrate_split(measured(shapes=12, bend=0.3))
    path = shipped.save(found, tmp_path)
    again = shipped.find(chip, "vllm", "bfloat16").value
    columns = measured(shapes=3).columns
    # Coefficients are written to five digits.
    assert again.predict(chip, columns).latency_us == pytest.approx(found.predict(chip, columns).latency_us, rel=1e-3)
    path.write_text(path.read_text().replace("matrix = ", "matrx = "))
    with pytest.raises(UserError, match=r"calibration .*vllm-bfloat16\.toml"):
        shipped.find(chip, "vllm", "bfloat16")


def test_one_row_moves_the_middle_and_narrows_nothing() -> None:
    chip = GpuChip.of(load_chip(CHIP))
    donor = shipped.find(chip, "sglang", "bfloat16").value
    data = measured(noise=0.0)
    one = calibrate(data.take(np.array([30])), donor)
    assert min(one.file.interval) >= min(donor.file.interval)
    columns = data.columns.take(np.arange(len(data)))
    notes = zip(one.predict(chip, columns).note, donor.predict(chip, columns).note, strict=True)
    assert all(before for after, before in notes if after)  # no new size is strange
    with pytest.raises(UserError, match="too few without a similar chip's"):
        calibrate(data.take(np.arange(10)))


def test_a_chip_of_ones_own_can_be_calibrated_and_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOE_CODESIGN_CALIBRATIONS", str(tmp_path / "own"))
    mine = tmp_path / "mine.toml"
    text = (Path(moe_codesign.chips.__file__).parent / f"{CHIP}.toml").read_text()
    mine.write_text(text.replace(f'name = "{CHIP}"', 'name = "mychip"'))
    table = tmp_path / "times.jsonl"
    some = [{**row, "chip": str(mine), "latency_us": 3 * float(str(row["latency_us"]))} for row in rows()[::24]]
    some.append({**some[0], "dtype": "fp8"})
    table.write_text("".join(json.dumps(row) + "\n" for row in some))
    fitted, path = mc.calibrate(str(mine), "vllm", source=table)
    assert path == tmp_path / "own" / "mychip-vllm-bfloat16.toml"
    assert fitted.file.left_out == {"another dtype": 1}
    problem = {**some[2], "stack": "vllm"}
    own, other = mc.predict([problem, {**problem, "chip": "b200"}])
    assert own["error"] == other["error"] == ""
    assert abs(own["latency_us"] / some[2]["latency_us"] - 1) < 0.3
    assert "which has measurements" in other["warning"]


@pytest.mark.parametrize(
    "harm", ["cut", "gone", "rubbish", "other arrays", "other shapes", "other inputs", "other format"]
)
def test_harmed_trees_are_reported_in_their_rows_alone(
    harm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOE_CODESIGN_CALIBRATIONS", str(tmp_path))
    name = f"{CHIP}-vllm-bfloat16"
    for suffix in (".toml", ".trees.npz"):
        shutil.copy(SHIPPED / f"{name}{suffix}", tmp_path)
    (tmp_path / "notes.toml").write_text("x = 1")
    trees = tmp_path / f"{name}.trees.npz"
    if harm == "cut":
        trees.write_bytes(trees.read_bytes()[:500])
    elif harm == "gone":
        trees.unlink()
    elif harm == "other inputs":
        flat = np.zeros((1, 1), dtype=np.float32)
        np.savez(trees, features=[[INPUTS]], borders=flat, leaves=np.zeros((1, 2), np.float32), bias=flat[0])
    elif harm == "other format":
        file = tmp_path / f"{name}.toml"
        file.write_text(file.read_text().replace(f"format = {FORMAT}", "format = 1"))
    elif harm == "rubbish":
        trees.write_bytes(b"tree")
    elif harm == "other arrays":
        np.savez(trees, features=np.zeros((2, 3), dtype=int))
    else:
        flat = np.zeros((2, 3), dtype=np.float32)
        np.savez(trees, features=flat.astype(int), borders=flat, leaves=flat, bias=flat[0, :1])
    problem = {**rows(shapes=1)[0], "chip": CHIP, "stack": "vllm"}
    vllm, sglang = mc.predict([problem, {**problem, "stack": "sglang"}])
    assert vllm["error"].startswith("calibration ")
    assert sglang["error"] == ""


def test_without_catboost_it_is_named_before_anything_is_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "is_installed", lambda package: package != "catboost")
    monkeypatch.setattr(fit, "fit_physics", None)
    with pytest.raises(UserError, match=r"a fit needs catboost, which is not installed; .*moe-codesign\[calibrate\]"):
        calibrate(measured())


def test_inputs_of_the_trees_are_as_many_as_a_file_may_ask_for() -> None:
    data = measured()
    _, t = timed_terms(TRUTH, Conventions(), data.columns, data.chip, data.stack, data.dtype)
    assert features(data.columns, t, data.latency_us).shape == (len(data), INPUTS)


@pytest.mark.parametrize(
    ("stack", "version", "shape", "gated", "routing"),
    [
        ("vllm", "0.24.0", (7168, 2048, 256, 8), True, "power_law:1.2/8/4"),
        ("sglang", "0.5.14", (7168, 2048, 256, 8), True, "power_law:1.2/8/4"),
        ("sglang", "0.5.10", (7168, 2048, 256, 8), True, "power_law:1.2"),
        ("sglang", "0.5.14", (7168, 2048, 384, 8), True, "power_law:1.2"),
        ("vllm", "0.24.0", (2688, 1856, 128, 6), False, "power_law:1.2"),
        ("sglang", "0.5.10", (2688, 1856, 128, 6), True, "power_law:1.2"),
        ("sglang", "0.5.14", (1024, 2688, 512, 22), True, "power_law:1.2"),
        ("sglang", "0.5.14", (8192, 5120, 512, 22), False, "power_law:1.2"),
    ],
)
def test_rows_are_read_as_their_collector_timed_them(
    stack: str, version: str, shape: tuple[int, int, int, int], gated: bool, routing: str
) -> None:
    hidden, inter, experts, top_k = shape
    row = {
        "framework": stack.upper(), "version": version, "hidden_size": hidden, "inter_size": inter, "topk": top_k,
        "num_experts": experts, "num_tokens": 8, "moe_tp_size": 1, "moe_ep_size": 1, "distribution": "power_law_1.2",
        "latency": 0.1,
    }  # fmt: skip
    found = renamed(row)
    assert (found["gated"], found["routing"]) == (gated, routing)


def test_arrays_say_what_catboost_says(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(3000, 5))
    inputs[:, 3] = 1.0  # a constant: no tree asks for it
    target = np.where(inputs[:, 0] > 0.3, inputs[:, 1], np.sin(3 * inputs[:, 2])) + 0.7
    kept: list[catboost.CatBoostRegressor] = []

    fit_trees = catboost.CatBoostRegressor.fit

    def kept_fit(self: Any, *args: object, **options: object) -> Any:
        kept.append(self)
        return fit_trees(self, *args, **options)

    monkeypatch.setattr(catboost.CatBoostRegressor, "fit", kept_fit)
    trees = learn_by_shape(inputs, target, np.repeat(["a", "b", "c"], 1000))
    unseen = rng.normal(size=(9001, 5))
    said = trees.predict(unseen)
    assert np.allclose(said, kept[0].predict(unseen), atol=1e-5)
    assert np.abs(said - np.where(unseen[:, 0] > 0.3, unseen[:, 1], np.sin(3 * unseen[:, 2])) - 0.7).mean() < 0.15


def test_what_is_not_there_is_reported() -> None:
    with pytest.raises(UserError, match="stack: got 'tgi'"):
        mc.calibrate(CHIP, "tgi")
    with pytest.raises(UserError, match="no calibration for stack sglang and dtype int8"):
        shipped.find(GpuChip.of(load_chip(CHIP)), "sglang", "int8")
