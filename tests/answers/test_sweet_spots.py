"""A size that grows: its times are those of ``predict``, and its edges lie where tiles, waves and units do."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import moe_codesign as mc
from moe_codesign.answers.sweet_spots import Edge, SweetSpots, SweptField
from moe_codesign.domain.failure import FailureKind
from moe_codesign.domain.metrics import METRICS, Known
from moe_codesign.errors import UserError
from moe_codesign.models import find_model

QWEN = find_model("Qwen3-30B-A3B")


def swept(chip: str, **asked: Any) -> SweetSpots:
    asked = {"low": 512, "high": 1152, "step": 64} | asked
    (found,) = mc.sweet_spots(asked.pop("model", "Qwen3-30B-A3B"), [chip], **asked)
    return found


def edges_at(found: SweetSpots, last: int) -> list[Edge]:
    return [edge for edge in found.edges if edge.last == last]


@pytest.mark.parametrize("field", ["moe_intermediate_size", "num_experts", "num_experts_per_tok", "num_tokens"])
@pytest.mark.parametrize("chip", ["trainium2", "h100_sxm"])
def test_every_point_is_what_predict_says(field: SweptField, chip: str) -> None:
    found = swept(chip, field=field, low=8, high=40, step=8, tokens=64)
    rows = [
        {
            "chip": chip, "hidden_size": 2048, "moe_intermediate_size": 768, "num_experts": 128,
            "num_experts_per_tok": 8, "num_tokens": 64, field: value,
        }
        for value in (8, 16, 24, 32, 40)
    ]  # fmt: skip
    assert [point.value for point in found.points] == [8, 16, 24, 32, 40]
    for point, said in zip(found.points, mc.predict(rows), strict=True):
        assert point.timing is not None
        assert point.timing.latency_us == pytest.approx(said["latency_us"], rel=1e-4)
        assert point.timing.grade == said["grade"]


def test_dollars_are_those_of_the_metric() -> None:
    found = swept("h100_sxm", low=704, high=768)
    point = found.points[-1]
    assert point.timing is not None
    known = Known(point.timing.latency_us, QWEN.num_layers, 1.0, found.workload)
    assert point.usd_per_mtok == pytest.approx(METRICS["usd_per_mtok"].of(known, mc.load_chip("h100_sxm")))
    assert swept("trainium2", low=704, high=768).points[0].usd_per_mtok is None


def test_a_tpu_has_an_edge_at_each_side_of_its_matrix_unit() -> None:
    """Compute-bound, the v6e's 256 x 256 units are full at multiples of 256, and padded right past them."""
    found = swept("tpu_v6e", high=1472, tokens=262_144, ep=4)
    assert found.spots == [512, 768, 1024, 1280]
    for last in found.spots:
        (edge,) = edges_at(found, last)
        assert "MXU" in edge.kinds
        assert f"GEMM 2 depth: {last // 256} to {last // 256 + 1} MXUs of 256 deep" in edge.what
        assert edge.lost > 0.03


def test_columns_are_shared_out_over_the_devices_of_a_chip_and_a_jump_of_the_time_counts() -> None:
    """A tpu7x has two devices: 1088 columns are 544 on each, three matrix units of 256 where 1024 filled two."""
    found = swept("tpu7x", model="Qwen3.5-397B", low=960, high=1088, tokens=262_144, ep=64, dtype="bfloat16")
    (edge,) = found.edges
    assert edge.last == 1024
    assert "GEMM 1 columns: 2 to 3 MXUs of 512 columns" in edge.what
    by_value = {point.value: point.timing.latency_us for point in found.points if point.timing is not None}
    # The bound's FLOPs and its weights grow by a sixteenth, the time by half.
    assert by_value[1088] > 1.4 * by_value[1024]
    assert edge.lost_us == pytest.approx(by_value[1088] - by_value[1024] * 1088 / 1024, rel=1e-6)


def test_a_gpu_has_edges_of_tiles_and_waves() -> None:
    found = swept("h100_sxm", tokens=4096)
    (edge,) = edges_at(found, 896)
    assert edge.kinds == ("tile", "wave")
    assert edge.what[0] == "GEMM 1 columns: 7 to 8 tiles of 128 columns"
    by_value = {point.value: point for point in found.points}
    before, after = by_value[896].losses_us, by_value[960].losses_us
    assert 0 < edge.lost_us < after["padding"] + after["waves"] - before["padding"] - before["waves"]


def test_the_bound_passes_from_memory_to_compute_by_hand() -> None:
    """On the data sheet the bound of a layer is compute's where rows times peak bytes outgrow the weights."""
    found = swept("trainium2", field="num_tokens", low=256, high=65_536, step=256)
    (edge,) = found.edges
    assert edge.kinds == ("bound",)
    weights = 128 * 2048 * 3 * 768 * 2

    def is_compute(tokens: int) -> bool:
        flops = 2 * tokens * 8 * 2048 * 3 * 768
        moved = weights + 2 * tokens * 2048 * 2
        return flops / 667e12 >= moved / 2.9e12

    assert (is_compute(edge.last), is_compute(edge.first)) == (False, True)
    assert found.spots == []


def test_what_ranks_cannot_share_is_an_edge_and_has_no_time() -> None:
    found = swept("h100_sxm", model="DeepSeek-V3", low=1024, high=1536, step=128, tp=4, dtype="fp8_block")
    assert {point.value for point in found.points if point.timing is None} == {1152, 1280, 1408}
    edges = [edge for edge in found.edges if edge.lost_us == 0 and edge.kinds != ("bound",)]
    assert [(edge.last, edge.first, edge.kinds) for edge in edges] == [(1024, 1152, ("scale block",))]
    odd = swept("trainium2", field="num_experts", low=64, high=80, step=1, ep=8)
    assert [point.value for point in odd.points if point.timing is not None] == [64, 72, 80]
    assert [(edge.first, edge.kinds) for edge in odd.edges] == [(65, ("split",))]
    too_many = swept("trainium2", field="num_experts_per_tok", low=64, high=192, step=64)
    error = too_many.points[-1].error
    assert error is not None
    assert error.kind is FailureKind.SHAPE


def test_a_type_that_a_chip_lacks_has_no_times() -> None:
    found = swept("trainium2", dtype="int8", low=512, high=576)
    assert all(point.error is not None and "int8" in point.error.text for point in found.points)


@settings(max_examples=15)
@given(
    st.sampled_from(["h100_sxm", "tpu_v6e", "trainium2"]),
    st.sampled_from(["moe_intermediate_size", "num_experts", "num_tokens"]),
    st.integers(16, 600),
    st.sampled_from([16, 64, 96]),
    st.sampled_from([1, 2, 4]),
)
def test_what_holds_for_every_sweep(chip: str, field: Any, low: int, step: int, ep: int) -> None:
    found = swept(chip, field=field, low=low, high=low + 6 * step, step=step, ep=ep)
    assert [point.value for point in found.points] == list(range(low, low + 6 * step + 1, step))
    timed = {point.value: point.timing for point in found.points if point.timing is not None}
    for edge in found.edges:
        assert edge.kinds
        assert edge.what
        assert edge.lost_us >= 0
        if edge.lost_us:
            assert (edge.last, edge.first) in set(pairwise(timed))
            assert edge.lost == pytest.approx(edge.lost_us / timed[edge.last].latency_us)
    assert found.spots == sorted({edge.last for edge in found.edges if edge.lost_us > 0})


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"field": "hidden_size"}, "moe_intermediate_size"),
        ({"low": 0}, "low"),
        ({"low": 1152}, "fewer than two values"),
        ({"low": 1, "high": 90_000, "step": 1}, "larger step"),
    ],
)
def test_wrong_ranges_are_refused(asked: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        swept("trainium2", **asked)
