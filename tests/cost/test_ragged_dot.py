"""The model of public grouped matmuls: each term, the coefficients that ship, and chips without them."""

import dataclasses

import numpy as np
import pytest

import moe_codesign as mc
from moe_codesign.calibrations.ragged_dot import RaggedDotGpuCoefficients, interval_and_warning, of_gpu
from moe_codesign.chips import GpuChip, load_chip
from moe_codesign.compiler.kernels import kernel_for
from moe_codesign.compiler.tile_table import Tables, TileTable
from moe_codesign.cost.ragged_dot import gpu as ragged_dot
from moe_codesign.cost.ragged_dot.gpu import tile_times
from moe_codesign.domain.grouped_gemm import GroupedGemm
from moe_kernels.tile import TritonTile

TILE = TritonTile(block_m=128, block_n=128, block_k=32, num_warps=4, num_stages=4)
PLAIN = RaggedDotGpuCoefficients(matrix_efficiency=0.9, rows_kept=100.0, walk_us_per_group=0.0)


@pytest.fixture(scope="module")
def table() -> TileTable:
    chip = load_chip("h100_sxm")
    return Tables(jobs=2).get(chip, kernel_for(chip, ragged_dot.KERNEL), "down", "bfloat16", only=TILE)


def gemm(groups: int, m: int = 8192, k: int = 2048, n: int = 4096) -> GroupedGemm:
    return GroupedGemm("down", np.full(groups, m // groups), k, n, m, "bfloat16", accumulates=False)


def us(table: TileTable, problem: GroupedGemm, **changed: float) -> float:
    return float(tile_times(table, problem, dataclasses.replace(PLAIN, **changed)).total_us[0])


def test_the_walk_costs_each_wave_each_group(table: TileTable) -> None:
    parts = tile_times(table, gemm(64), dataclasses.replace(PLAIN, walk_us_per_group=0.2)).parts_us
    twice = tile_times(table, gemm(64), dataclasses.replace(PLAIN, walk_us_per_group=0.4)).parts_us
    assert twice["walk over groups"] == pytest.approx(2 * parts["walk over groups"])
    short = gemm(256, k=512)
    assert us(table, short, walk_us_per_group=0.2) > 1.2 * us(table, short)


def test_a_deeper_pipeline_helps_most_where_loads_take_longer(table: TileTable) -> None:
    def at(stages: int, **changed: float) -> float:
        columns = table.columns | {"num_stages": np.array([float(stages)])}
        return us(dataclasses.replace(table, columns=columns), gemm(8), **changed)

    gains = [at(3, matrix_efficiency=share) / at(5, matrix_efficiency=share) for share in (0.9, 0.3)]
    assert gains[0] > gains[1] > 1


def test_rows_are_read_again_where_the_cache_is_small(table: TileTable) -> None:
    many = gemm(8, m=1 << 18)
    kept, lost = (tile_times(table, many, dataclasses.replace(PLAIN, rows_kept=k)).parts_us for k in (1e6, 1e-6))
    columns, rows = -(-4096 // 128), 2.0 * (1 << 18) * 2048
    chip = GpuChip.of(table.chip)
    again = 1e6 * (columns - 1) * rows / (chip.memory.hbm_bytes_per_s * chip.memory.hbm_efficiency)
    assert lost["memory"][0] - kept["memory"][0] == pytest.approx(again, rel=0.01)


@pytest.mark.parametrize("name", ["h100_sxm", "b200"])
def test_shipped_coefficients_are_physical(name: str) -> None:
    chip = GpuChip.of(load_chip(name))
    found = of_gpu(chip)
    coefficients, ((low, high), warning) = found.value.coefficients, interval_and_warning(chip, found)
    assert 0.3 <= coefficients.matrix_efficiency <= 0.95
    assert 0.05 < coefficients.walk_us_per_group < 1, "a load from L2 takes 0.1 to 0.6 us"
    assert 0.6 < low < 1 < high < 1.6
    assert warning == ""


def test_a_chip_without_its_own_says_so() -> None:
    chip = GpuChip.of(load_chip("a100_sxm"))
    found = of_gpu(chip)
    interval, warning = interval_and_warning(chip, found)
    assert found.value == of_gpu(GpuChip.of(load_chip("h100_sxm"))).value
    assert interval == (0.6, 2.4)
    assert "h100_sxm" in warning


def test_predict_takes_the_tiles_of_others() -> None:
    row = {"chip": "h100_sxm", "op": "grouped_gemm", "m": 131072, "k": 2048, "n": 768, "groups": 128}
    row |= {"routing": "balanced"}
    tile = '{"block_m": 128, "block_n": 128, "block_k": 32, "num_warps": 4, "num_stages": 4, "split_k": 1, "x": null}'
    theirs, ours, named = mc.predict(
        [
            {**row, "tile": tile, "stack": "ragged_dot"},
            {**row, "tile": tile},
            {**row, "tile": tile, "kernel": "triton.grouped_gemm"},
        ]
    )
    assert [one["error"] for one in (theirs, ours, named)] == ["", "", ""]
    assert ours["latency_us"] == named["latency_us"], "without a stack it is our kernel, whatever else is given"
    # Published: 1.14 ms (tokamax' autotuning cache).
    assert float(theirs["latency_us"]) == pytest.approx(1144, rel=0.15)
    assert float(theirs["latency_us"]) != float(ours["latency_us"])
    assert float(theirs["low_us"]) >= float(theirs["bound_us"])


def test_what_ragged_dot_does_not_run_says_so() -> None:
    row = {"chip": "h100_sxm", "op": "grouped_gemm", "m": 64, "k": 256, "n": 256, "groups": 4, "stack": "ragged_dot"}
    tile = {"block_m": 64, "block_n": 64, "block_k": 64}
    wrong: tuple[tuple[dict[str, object], str], ...] = (
        ({}, "needs a tile"),
        ({"tile": tile, "kernel": "triton.grouped_matmul"}, "kernels of its own"),
        ({"tile": tile, "op": "fused_moe"}, "op = grouped_gemm"),
        (
            {"tile": tile, "chip": "trainium2"},
            "no kernel for backend 'none' of trainium2; choose a chip with a compile",
        ),
        (
            {"tile": {"tile_m": 16, "tile_k": 16, "tile_n": 16}, "chip": "cpu"},
            "stack ragged_dot runs on GPUs and TPUs, cpu is a host",
        ),
    )
    for change, said in wrong:
        (answer,) = mc.predict([{**row, **change}])
        assert said in answer["error"]
