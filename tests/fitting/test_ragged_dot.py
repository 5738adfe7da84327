"""The fit of public ragged_dot kernels finds coefficients again whose times are known."""

import csv
import gzip
import json
import tomllib
from pathlib import Path

import numpy as np
import pytest

from moe_codesign.calibrations.ragged_dot import RaggedDotTpuCoefficients
from moe_codesign.chips import TpuChip, load_chip
from moe_codesign.compiler.tile_table import Tables
from moe_codesign.cost.ragged_dot.tpu import time_parts
from moe_codesign.domain.grouped_gemm import GroupedGemm
from moe_codesign.errors import UserError
from moe_codesign.fitting.ragged_dot import cases_of, held_out_us, measured_us, predicted_us, write
from moe_codesign.formats.tokamax import RaggedDotTime, read_times

CHIP = TpuChip.of(load_chip("tpu_v6e"))
TRUTH = RaggedDotTpuCoefficients(matrix_efficiency=0.8, step_us=0.5, hbm_efficiency=0.7)
TILES = ((128, 1024, 256), (256, 2048, 512), (512, 512, 1024))


def times() -> list[RaggedDotTime]:
    found = []
    for k, n, groups in ((2048, 1024, 8), (4096, 2048, 16), (1024, 4096, 64), (7168, 2048, 8)):
        for tile_m, tile_k, tile_n in TILES:
            config = json.dumps({"tile_m": tile_m, "tile_k": tile_k, "tile_n": tile_n})
            time = RaggedDotTime(CHIP.name, "op", 8192, k, n, groups, "equal", config, 1.0)
            gemm = GroupedGemm("down", time.rows, k, n, 8192, "bfloat16", accumulates=False)
            us = sum(time_parts(CHIP, gemm, (tile_m, tile_k, tile_n), TRUTH).values())
            found.append(RaggedDotTime(CHIP.name, "op", 8192, k, n, groups, "equal", config, us))
    return found


def test_known_times_are_found_again_and_written(tmp_path: Path) -> None:
    cases, refused = cases_of(times(), Tables())
    assert refused == []
    assert held_out_us(cases) == pytest.approx(measured_us(cases), rel=0.1)
    path = tmp_path / "ragged_dot.toml"
    write(path, cases, [CHIP.name])
    fitted = tomllib.loads(path.read_text())[CHIP.name]
    # Not each number: where nothing waits for memory, a step's efficiency and its fixed time trade against each other.
    logs = np.log([fitted[name] for name in TRUTH.names()])
    assert predicted_us(logs, cases) == pytest.approx(measured_us(cases), rel=0.05)
    assert fitted["low"] <= 1 <= fitted["high"]


def test_a_time_without_a_tile_is_passed_over_and_rows_are_spread_as_measured() -> None:
    whole = RaggedDotTime(CHIP.name, "op", 64, 256, 256, 4, "single", "{}", 1.0)
    assert cases_of([whole], Tables()) == ([], [])
    assert whole.rows.tolist() == [64, 0, 0, 0]
    drawn = RaggedDotTime(CHIP.name, "op", 64, 256, 256, 4, "random", "{}", 1.0)
    assert drawn.rows.sum() == 64
    assert len(set(drawn.rows.tolist())) > 1


def test_a_table_is_read_by_its_columns(tmp_path: Path) -> None:
    row = {
        "device": "tpu_v6_lite", "op": "pallas_mosaic_tpu_ragged_dot", "kind": "fwd", "lhs": "bf16", "rhs": "bf16",
        "M": "64", "K": "256", "N": "512", "G": "4", "group_dist": "equal", "config": "{}", "median_ms": "0.5",
    }  # fmt: skip
    others = [{**row, "kind": "bwd"}, {**row, "lhs": "f32"}, {**row, "device": "abacus"}, {**row, "config": ""}]
    path = tmp_path / "times.csv.gz"
    with gzip.open(path, "wt", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        writer.writeheader()
        writer.writerows([row, {**row, "median_ms": "1.5"}, *others])
    (time,) = read_times(path)
    assert (time.chip, time.m, time.k, time.n, time.groups) == ("tpu_v6e", 64, 256, 512, 4)
    assert time.us == pytest.approx(1000.0), "the same measured twice is one time, the median"
    assert np.array_equal(time.rows, [16] * 4)
    path.write_bytes(b"no archive")
    with pytest.raises(UserError, match="cannot be read"):
        read_times(path)
