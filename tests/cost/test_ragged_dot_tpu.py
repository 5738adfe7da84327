"""The model of public TPU grouped matmuls: its visits and bytes, the coefficients that ship, and published times."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import moe_codesign as mc
from moe_codesign.calibrations.ragged_dot import RaggedDotTpuCoefficients, interval_and_warning, of_tpu
from moe_codesign.chips import TpuChip, load_chip
from moe_codesign.cost.ragged_dot.tpu import time_parts, visit_bytes, visits_of
from moe_codesign.domain.grouped_gemm import GroupedGemm

PLAIN = RaggedDotTpuCoefficients(matrix_efficiency=1.0, step_us=0.0, hbm_efficiency=1.0)


def gemm(sizes: list[int], k: int = 2048, n: int = 1024) -> GroupedGemm:
    return GroupedGemm("down", np.array(sizes), k, n, sum(sizes), "bfloat16", accumulates=False)


@given(sizes=st.lists(st.integers(0, 70), min_size=1, max_size=9), tile_m=st.sampled_from((1, 8, 32)))
def test_visits_are_the_pairs_of_group_and_row_tile_that_share_rows(sizes: list[int], tile_m: int) -> None:
    group_of_row = np.repeat(np.arange(len(sizes)), sizes)
    pairs = sorted({(int(g), row // tile_m) for row, g in enumerate(group_of_row)})
    group, row_tile = visits_of(np.array(sizes), tile_m)
    assert list(zip(group.tolist(), row_tile.tolist(), strict=True)) == pairs


def test_weights_are_read_for_every_group_and_again_where_k_is_cut() -> None:
    once = visit_bytes(gemm([256, 256]), (128, 2048, 1024))
    weights, rows = 2.0 * 2048 * 1024, 2.0 * 128 * (2048 + 1024)
    assert once.tolist() == [weights + rows, rows, weights + rows, rows]
    again = visit_bytes(gemm([256, 256]), (128, 1024, 1024))
    assert again.tolist() == [weights + rows] * 4


def test_a_row_tile_that_two_groups_share_is_computed_for_both_and_read_once() -> None:
    chip = TpuChip.of(load_chip("tpu_v6e"))
    shared, apart = visit_bytes(gemm([64, 64]), (128, 2048, 1024)), visit_bytes(gemm([128, 128]), (128, 2048, 1024))
    assert shared[1] < apart[1]
    busy = RaggedDotTpuCoefficients(matrix_efficiency=1e-3, step_us=0.0, hbm_efficiency=1.0)
    both, one = (time_parts(chip, gemm(s), (128, 2048, 1024), busy)["compute"] for s in ([64, 64], [128]))
    assert both == pytest.approx(2 * one)


@pytest.mark.parametrize("name", ["tpu_v5e", "tpu_v5p", "tpu_v6e", "tpu7x"])
def test_shipped_coefficients_are_physical(name: str) -> None:
    chip = TpuChip.of(load_chip(name))
    found = of_tpu(chip)
    coefficients, ((low, high), warning) = found.value.coefficients, interval_and_warning(chip, found)
    assert 0.7 < coefficients.matrix_efficiency < 1.1
    assert coefficients.step_us < 2
    assert coefficients.hbm_efficiency > 0.6
    assert 0.7 < low <= 1 <= high < 1.4
    assert warning == ""


def test_a_chip_without_its_own_says_so() -> None:
    like = TpuChip.of(load_chip("tpu_v6e"))
    chip = like.model_copy(update={"name": "tpu_v9"})
    found = of_tpu(chip)
    interval, warning = interval_and_warning(chip, found)
    assert found.value == of_tpu(like).value
    assert interval == (0.6, 2.4)
    assert "tpu_v6e" in warning


@pytest.mark.parametrize(
    ("chip", "n", "tile", "published_us"),
    [
        ("tpu_v6e", 1024, (512, 7168, 512), 5562),
        ("tpu_v5p", 1024, (128, 7168, 256), 11651),
        ("tpu7x", 1024, (256, 7168, 1024), 3610),
    ],
)
def test_predict_is_near_what_was_fitted(chip: str, n: int, tile: tuple[int, ...], published_us: float) -> None:
    sizes = dict(zip(("tile_m", "tile_k", "tile_n"), tile, strict=True)) | {"input_buffer_count": 2}
    row = {"chip": chip, "op": "grouped_gemm", "m": 131072, "k": 7168, "n": n, "groups": 256, "routing": "uniform"}
    row |= {"stack": "ragged_dot"}
    (answer,) = mc.predict([{**row, "tile": sizes}])
    assert (answer["error"], answer["grade"]) == ("", "modelled")
    assert float(answer["latency_us"]) == pytest.approx(published_us, rel=0.1)
    assert ("one of 2 cores" in str(answer["warning"])) == (chip in ("tpu_v5p", "tpu7x"))
