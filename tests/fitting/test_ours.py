"""Our own kernels' cost model: fitted to races whose truth is known, written, read, carried to another chip."""

import csv
import dataclasses
import gzip
import json
from pathlib import Path

import numpy as np
import pytest

import moe_codesign as mc
from moe_codesign.calibrations.catalogue import SHIPPED, UNKNOWN_INTERVAL
from moe_codesign.calibrations.ours import OurCoefficients
from moe_codesign.chips import GpuChip, load_chip
from moe_codesign.compiler.kernels import kernel_for
from moe_codesign.compiler.tile_table import Tables
from moe_codesign.cost.ours import gpu
from moe_codesign.cost.ours import learned as ours
from moe_codesign.cost.ours.shipped import of_chip
from moe_codesign.domain.grouped_gemm import GroupedGemm, layer_gemms
from moe_codesign.domain.grouped_gemms import GroupedGemms
from moe_codesign.domain.rank import rank_work
from moe_codesign.errors import UserError
from moe_codesign.fitting.ours import fit_physics, fitted, judge, physics_us
from moe_codesign.fitting.races import Race, read_races
from moe_codesign.formats.problem_rows import layer_of

CHIP = GpuChip.of(load_chip("h100_sxm"))
TRUTH = dataclasses.replace(OurCoefficients(), memory=1.4, launch_us=14.0, l2=1.1, edge=6.0)
SPACE = {
    "block_m": (16, 64), "block_n": (64, 128), "block_k": (64,), "num_warps": (4,), "num_stages": (3,),
    "group_m": (1, 8), "split_k": (1,), "persistent": (False,), "tma": (False,), "swap_ab": (False,),
}  # fmt: skip
SHAPES = ((1024, 512, 16, 2), (2048, 768, 32, 4), (4096, 1024, 8, 2), (2048, 256, 64, 8))


def races_of(path: Path, *, flush: str = "read", noise: float = 0.01, shapes: int = len(SHAPES)) -> Path:
    """A table of races whose times are the physics' at TRUTH, and some of the L2 written back where it is dirty."""
    rng = np.random.default_rng(0)
    kernel, rows = kernel_for(CHIP), []
    for hidden, width, experts, top_k in SHAPES[:shapes]:
        for tokens in (4, 512):
            about = {
                "hidden_size": hidden, "moe_intermediate_size": width, "num_experts": experts,
                "num_experts_per_tok": top_k, "num_tokens": tokens, "routing": "uniform", "seed": 0,
                "dtype": "bfloat16", "flush": flush,
            }  # fmt: skip
            for gemm in layer_gemms(rank_work(*layer_of(about, "bfloat16"))):
                table = Tables(jobs=2).get(CHIP, kernel, gemm.op, space=SPACE)
                us = gpu.tile_times(table, gemm, TRUTH, dirty=0.5 * (flush == "write")).total_us
                us = us * np.exp(noise * rng.standard_normal(len(us)))
                rows += [
                    about | {"op": gemm.op, "tile": json.dumps(tile.as_dict()), "latency_us": time}
                    for tile, time in zip(table.tiles, us.tolist(), strict=True)
                ]
    rows.append(rows[0] | {"latency_us": ""})
    rows.append(rows[0] | {"op": "layer, best"})
    with gzip.open(path, "wt", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "own"
    monkeypatch.setenv("MOE_CODESIGN_CALIBRATIONS", str(folder))
    return folder


def errors(races: list[Race], x: OurCoefficients, dirty: float) -> float:
    return float(np.mean([np.abs(physics_us(x, r, dirty=dirty) / r.latency_us - 1).mean() for r in races]))


@pytest.mark.parametrize("flush", ["read", "write"])
def test_a_fit_finds_the_times_again(flush: str, tmp_path: Path) -> None:
    races = read_races(races_of(tmp_path / "races.csv.gz", flush=flush), CHIP, jobs=2)
    assert len(races) == 16
    assert errors(races, OurCoefficients(), 1.0) > 0.04
    x, dirty = fit_physics(races, OurCoefficients())
    assert errors(races, x, dirty) < 0.02
    if flush == "write":
        assert dirty == pytest.approx(0.5, abs=0.2)


def interval(model: ours.OurModel, gemm: GroupedGemm, *, of_layer: bool = False) -> tuple[float, float]:
    low, high = model.interval(GroupedGemms.of([gemm]), of_layer=of_layer)
    return float(low[0]), float(high[0])


def warning(model: ours.OurModel, gemm: GroupedGemm) -> str | None:
    return model.warnings(GroupedGemms.of([gemm])).get(0)


@pytest.mark.slow
def test_calibrating_from_races_changes_what_is_predicted(own: Path, tmp_path: Path) -> None:
    table = races_of(tmp_path / "races.csv.gz")
    before = of_chip(CHIP)
    file, path = mc.calibrate_ours("h100_sxm", table, jobs=2)
    assert path == own / "h100_sxm-ours.toml"
    assert (file.races, file.error < 0.05, file.regret < 0.05) == (16, True, True)
    after = of_chip(CHIP)
    assert after.calibration.file.coefficients == pytest.approx(file.coefficients, rel=1e-5)
    assert after.calibration.coefficients != before.calibration.coefficients
    races = read_races(table, CHIP, jobs=2)
    assert np.mean([one.error for one in judge((after, 0.0), races)]) < 0.03
    gemm = races[0].gemm
    low, high = interval(after, gemm)
    assert 0.8 < low < 1 < high < 1.25
    assert interval(after, dataclasses.replace(gemm, dtype="float16")) == (low, high)
    assert interval(after, gemm, of_layer=True)[1] == np.exp(ours.LAYER_LOG_WIDTH)
    unraced = dataclasses.replace(gemm, dtype="mxfp4"), dataclasses.replace(gemm, rows=gemm.rows * 10**6)
    assert [interval(after, one) for one in unraced] == [UNKNOWN_INTERVAL] * 2
    assert [warning(after, one) for one in unraced] == [
        "mxfp4 was raced with fewer than two shapes",
        "more rows per expert than were raced",
    ]
    assert warning(after, gemm) is None
    assert warning(after, dataclasses.replace(gemm, dtype="float16")) is None
    file = after.calibration.file.model_copy(update={"log_width": {"fp8": 0.1}})
    less = ours.OurModel(dataclasses.replace(after.calibration, file=file), after.chip)
    assert warning(less, dataclasses.replace(gemm, dtype="float16")) == "bfloat16 was raced with fewer than two shapes"


def test_raced_tiles_whose_rows_name_no_routing_are_counted(tmp_path: Path) -> None:
    table = races_of(tmp_path / "races.csv.gz", shapes=1)
    rows = list(csv.DictReader(gzip.decompress(table.read_bytes()).decode().splitlines()))
    unnamed = [row | {"routing": ""} if row["num_tokens"] == "4" else row for row in rows]
    with (tmp_path / "unnamed.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(unnamed)
    races = read_races(tmp_path / "unnamed.csv", CHIP, jobs=2)
    assert [race.unnamed_routing for race in races] == [len(race.latency_us) * (race.tokens == 4) for race in races]
    assert sum(race.unnamed_routing for race in read_races(table, CHIP, jobs=2)) == 0


def test_a_chip_that_was_not_raced_takes_coefficients_and_no_more() -> None:
    raced, other = of_chip(CHIP), of_chip(GpuChip.of(load_chip("mi300x")))
    assert other.calibration.coefficients == raced.calibration.coefficients
    gemm = GroupedGemm("down", np.array([5, 7]), 2048, 768, 12, "bfloat16", accumulates=True)
    assert (other.is_transferred, interval(other, gemm)) == (True, UNKNOWN_INTERVAL)
    assert warning(other, gemm) == "coefficients of h100_sxm: no tiles were raced on this chip"
    row = {"chip": "mi300x", "op": "grouped_gemm", "kernel": "triton.grouped_gemm", "m": 64, "k": 1024, "n": 512}
    (answer,) = mc.predict([row | {"groups": 4, "tile": '{"block_m": 64, "block_n": 64, "block_k": 64}'}])
    assert (answer["warning"], answer["error"]) == (warning(other, gemm), "")


def test_a_calibration_of_a_chip_of_ones_own_is_no_other_chips(own: Path) -> None:
    own.mkdir()
    for name in (".toml", ".trees.npz"):
        (own / f"mine-ours{name}").write_bytes((SHIPPED / f"h100_sxm-ours{name}").read_bytes())
    assert of_chip(GpuChip.of(load_chip("mi300x"))).calibration == of_chip(CHIP).calibration


def test_losses_are_on_the_scale_of_the_whole() -> None:
    model, kernel = of_chip(CHIP), kernel_for(CHIP)
    gemm = layer_gemms(rank_work(*layer_of(dict(zip(("hidden_size", "moe_intermediate_size", "num_experts",
        "num_experts_per_tok", "num_tokens"), (2048, 768, 128, 8, 64), strict=True)), "bfloat16")))[0]  # fmt: skip
    table = Tables(jobs=2).get(CHIP, kernel, gemm.op, space=SPACE)
    whole, ideal = model.tile_times(table, gemm), model.tile_times(table, gemm, {"padding", "waves"})
    physics, bare = (
        gpu.tile_times(table, gemm, model.calibration.coefficients, off) for off in (set(), {"padding", "waves"})
    )
    assert ideal.total_us / whole.total_us == pytest.approx(bare.total_us / physics.total_us)
    assert (ideal.total_us <= whole.total_us * (1 + 1e-9)).all()


@pytest.mark.parametrize("fault", ["text", "format", "trees"])
def test_a_broken_file_says_so(fault: str, own: Path) -> None:
    own.mkdir()
    for name in ("h100_sxm-ours.toml", "h100_sxm-ours.trees.npz"):
        content = (SHIPPED / name).read_bytes()
        if fault == "text" and name.endswith("toml"):
            content = b"[["
        elif fault == "format" and name.endswith("toml"):
            content = content.replace(b"format = 1", b"format = 99")
        elif fault == "trees" and name.endswith("npz"):
            content = content[:100]
        (own / name).write_bytes(content)
    with pytest.raises(UserError, match="calibrate again"):
        of_chip(CHIP)


def test_one_shape_of_a_type_teaches_no_trees(tmp_path: Path) -> None:
    one, two = (read_races(races_of(tmp_path / f"{n}.csv.gz", shapes=n), CHIP, jobs=2) for n in (1, 2))
    assert fitted(CHIP, one, OurCoefficients())[0].calibration.trees is None
    assert fitted(CHIP, two, OurCoefficients())[0].calibration.trees is not None


def test_too_few_races_and_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="4 races of 1 shapes are too few"):
        mc.calibrate_ours("h100_sxm", races_of(tmp_path / "few.csv.gz", shapes=1), out=tmp_path / "out")
    (tmp_path / "empty.csv").write_text("op,latency_us\nlayer,3.0\n")
    with pytest.raises(UserError, match="holds no races"):
        mc.calibrate_ours("h100_sxm", tmp_path / "empty.csv", out=tmp_path / "out")
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(b"op,latency_us\n")[:12])
    with pytest.raises(UserError, match="cannot be read"):
        mc.calibrate_ours("h100_sxm", tmp_path / "cut.csv.gz", out=tmp_path / "out")
    with pytest.raises(UserError, match="tpu_v6e is a TPU"):
        mc.calibrate_ours("tpu_v6e", tmp_path / "empty.csv", out=tmp_path / "out")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tile", ""),
        ("tile", '{"block_q": 1}'),
        ("latency_us", "abc"),
        ("latency_us", "-3"),
        ("latency_us", "nan"),
        ("flush", "none"),
        ("dtype", "fp3"),
        ("chip", "a100_sxm"),
        ("num_tokens", "many"),
        ("tile", "[1]"),
    ],
)
def test_a_row_that_is_none_is_named(field: str, value: str, tmp_path: Path) -> None:
    row = {
        "hidden_size": "1024", "moe_intermediate_size": "512", "num_experts": "16", "num_experts_per_tok": "2",
        "num_tokens": "8", "dtype": "bfloat16", "flush": "read", "op": "down", "chip": "h100_sxm", "latency_us": "20.5",
        "tile": json.dumps({"block_m": 16, "block_n": 64, "block_k": 64, "num_warps": 4, "num_stages": 3}),
    }  # fmt: skip
    with (tmp_path / "races.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        writer.writeheader()
        writer.writerows([row, row | {field: value}])
    with pytest.raises(UserError, match="line 3"):
        read_races(tmp_path / "races.csv", CHIP)


def test_the_shipped_file_is_of_the_races_that_are_reported() -> None:
    folder = Path(SHIPPED).parents[1] / "results" / "gpu"
    rows = [
        row
        for path in folder.glob("*.csv.gz")
        for row in csv.DictReader(gzip.decompress(path.read_bytes()).decode().splitlines())
        if row["op"] in ("gate_up", "down") and row["latency_us"]
    ]
    file = of_chip(CHIP).calibration.file
    assert file.rows == pytest.approx(len(rows), rel=0.03)  # without tiles that another compiler cannot fit
    assert file.races == len({tuple(row[n] for n in ("op", "dtype", "model", "num_tokens")) for row in rows})
