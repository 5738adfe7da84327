"""What every estimate must obey, whatever the chip."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import moe_codesign as mc
from moe_codesign.chips import Chip, load_chip
from moe_codesign.compiler.kernels import kernel_for
from moe_codesign.compiler.tile_table import Tables
from moe_codesign.cost.bound import layer_bound
from moe_codesign.cost.datasheet import datasheet, layer_slowdown
from moe_codesign.cost.estimate import Estimate, NoTileError
from moe_codesign.cost.occupancy import resident_blocks
from moe_codesign.cost.ours.model import estimate_gemm, estimate_layer
from moe_codesign.domain.dtype import DTYPE_BYTES, WEIGHT_ONLY
from moe_codesign.domain.grouped_gemm import GroupedGemm, layer_gemms
from moe_codesign.domain.rank import rank_work
from moe_codesign.domain.routing import parse_routing
from moe_codesign.domain.shape import MoEShape
from moe_codesign.domain.workload import Workload
from moe_codesign.errors import UserError
from moe_codesign.models import models

CHIPS = ("h100_sxm", "mi300x", "tpu_v6e", "trainium2")
SMALL: dict[str, tuple[int | bool, ...]] = {
    "block_m": (16, 64),
    "block_n": (128,),
    "block_k": (64,),
    "num_warps": (4,),
    "num_stages": (3,),
    "split_k": (1,),
    "persistent": (False,),
    "tma": (False,),
    "swap_ab": (False,),
}
"""Few tiles, for what must be compiled because the package has no facts of it."""


@pytest.fixture(scope="module")
def tables() -> Tables:
    return Tables(jobs=2)


def estimate(
    tables: Tables, chip: str, shape: MoEShape, tokens: int, routing: str = "balanced", *, ep: int = 1
) -> Estimate:
    workload = Workload(name="w", num_tokens=tokens, routing=parse_routing(routing), ep=ep)
    return estimate_layer(tables, load_chip(chip), rank_work(shape, workload), with_losses=True)


@settings(deadline=None, max_examples=40)
@given(
    chip=st.sampled_from(CHIPS),
    hidden=st.integers(1, 64).map(lambda n: 128 * n),
    width=st.integers(1, 64).map(lambda n: 64 * n),
    experts=st.integers(1, 300),
    tokens=st.integers(1, 20000),
    routing=st.sampled_from(["balanced", "uniform", "zipf:1"]),
    data=st.data(),
)
def test_no_estimate_beats_physics(
    chip: str, hidden: int, width: int, experts: int, tokens: int, routing: str, data: st.DataObject
) -> None:
    shape = MoEShape(
        hidden_size=hidden,
        moe_intermediate_size=width,
        num_experts=experts,
        num_experts_per_tok=data.draw(st.integers(1, min(experts, 16))),
    )
    timing = estimate(Tables(jobs=2), chip, shape, tokens, routing).timing
    assert timing.bound_us <= timing.low_us * (1 + 1e-9)
    assert timing.low_us <= timing.latency_us <= timing.high_us
    assert np.isfinite(timing.high_us)


@pytest.mark.parametrize("chip", CHIPS)
def test_more_work_takes_longer(tables: Tables, chip: str) -> None:
    shape = models()["Qwen3-30B-A3B"]
    by_tokens = [estimate(tables, chip, shape, t).timing.latency_us for t in (1, 16, 256, 4096, 32768)]
    assert by_tokens == sorted(by_tokens)
    wider = dataclasses.replace(shape, moe_intermediate_size=1536)
    assert estimate(tables, chip, wider, 4096).timing.latency_us > by_tokens[3]


@pytest.mark.parametrize("chip", ["h100_sxm", "tpu_v6e"])
def test_losses_and_bound_add_up(tables: Tables, chip: str) -> None:
    for tokens in (1, 64, 4096):
        found = estimate(tables, chip, models()["DeepSeek-V3"], tokens)
        total = found.timing.bound_us + sum(found.losses_us.values())
        assert total == pytest.approx(found.timing.latency_us, rel=0.02)
        assert min(found.losses_us.values()) >= 0


def test_skew_costs_time_at_prefill(tables: Tables) -> None:
    shape = models()["Qwen3-30B-A3B"]
    even = estimate(tables, "h100_sxm", shape, 8192, "balanced", ep=8).timing.latency_us
    skewed = estimate(tables, "h100_sxm", shape, 8192, "zipf:1", ep=8).timing.latency_us
    assert skewed > 1.3 * even


def test_the_row_block_matters_most_at_decode(tables: Tables) -> None:
    """One row per expert in a block of 64 wastes 63: the smaller block is chosen."""
    found = estimate(tables, "h100_sxm", models()["Qwen3-30B-A3B"], 8)
    assert found.tiles[0].as_dict()["block_m"] <= 16


def test_grades_say_where_a_time_comes_from(tables: Tables) -> None:
    shape = models()["Qwen3-30B-A3B"]
    grades = {chip: estimate(tables, chip, shape, 64).timing.grade for chip in CHIPS}
    assert grades == {
        "h100_sxm": "modelled",
        "mi300x": "modelled",
        "tpu_v6e": "simulated",
        "trainium2": "datasheet",
    }


@settings(deadline=None, max_examples=60)
@given(
    chip=st.sampled_from(["tpu_v6e", "tpu7x", "trainium2", "b200"]),
    tokens=st.integers(1, 40_000),
    hidden=st.integers(1, 64).map(lambda n: 128 * n),
    width=st.integers(1, 32).map(lambda n: 128 * n),
)
def test_fewer_bytes_a_weight_are_never_slower_at_the_grade_of_a_data_sheet(
    chip: str, tokens: int, hidden: int, width: int
) -> None:
    shape = MoEShape(hidden_size=hidden, moe_intermediate_size=width, num_experts=32, num_experts_per_tok=4)
    one = load_chip(chip)
    found = []
    for dtype in sorted(DTYPE_BYTES, key=lambda dtype: -DTYPE_BYTES[dtype]):
        if one.has(dtype) and dtype not in WEIGHT_ONLY:
            bound = layer_bound(one, rank_work(shape, Workload(name="w", num_tokens=tokens, dtype=dtype)))
            found.append(datasheet(bound, layer_slowdown(one), "").timing.latency_us)
    assert found == sorted(found, reverse=True)


def test_a_data_sheets_time_is_by_what_bounds_it_and_has_its_launches(tables: Tables) -> None:
    shape = MoEShape(hidden_size=2048, moe_intermediate_size=768, num_experts=128, num_experts_per_tok=8)
    wide, narrow = (
        estimate_layer(tables, load_chip("tpu_v6e"), rank_work(shape, Workload(name="w", num_tokens=32, dtype=dtype)))
        for dtype in ("bfloat16", "fp8")
    )
    assert (wide.timing.grade, narrow.timing.grade) == ("simulated", "datasheet")
    assert narrow.timing.latency_us < 0.65 * wide.timing.latency_us, "half the bytes"
    assert narrow.notes == ("from the data sheet alone: pallas.grouped_matmul has no fp8",)
    (one,) = mc.predict(
        [{"chip": "b200", "dtype": "fp4", "num_tokens": 1, "hidden_size": 2048, "moe_intermediate_size": 768,
          "num_experts": 128, "num_experts_per_tok": 8}]
    )  # fmt: skip
    assert one["latency_us"] > 26, "the launches of a layer alone"
    assert one["low_us"] == one["bound_us"]


def test_a_type_without_kernel_is_datasheet_and_without_units_an_error(tables: Tables) -> None:
    shape = models()["DeepSeek-V3"]
    work = rank_work(shape, Workload(name="w", num_tokens=64, dtype="fp4"))
    assert estimate_layer(tables, load_chip("b200"), work).timing.grade == "datasheet"
    with pytest.raises(UserError, match="h100_sxm has no fp4"):
        estimate_layer(tables, load_chip("h100_sxm"), work)
    fp8 = rank_work(shape, Workload(name="w", num_tokens=64, dtype="fp8"))
    with pytest.raises(UserError, match="a100_sxm has no fp8"):
        estimate_layer(tables, load_chip("a100_sxm"), fp8)


@pytest.mark.parametrize(
    "dtype", ["fp8_block", "int4", *(pytest.param(dtype, marks=pytest.mark.slow) for dtype in ("int8", "mxfp4"))]
)
def test_narrow_types_are_modelled_and_cost_less_than_wide_ones(tables: Tables, dtype: str) -> None:
    shape, chip = models()["DeepSeek-V3"], load_chip("h100_sxm")
    narrow, wide = (
        estimate_layer(tables, chip, rank_work(shape, Workload(name="w", num_tokens=64, dtype=d)), space=SMALL)
        for d in (dtype, "bfloat16")
    )
    assert narrow.timing.grade == "modelled"
    # Decode is bound by weight bytes: half of them, or a quarter, at nearly half of the time.
    assert narrow.timing.latency_us < 0.75 * wide.timing.latency_us


def test_a_tile_that_this_size_cannot_use_is_not_chosen(tables: Tables) -> None:
    chip = load_chip("h100_sxm")
    space = {**SMALL, "tma": (False, True), "split_k": (1, 4)}
    table = tables.get(chip, kernel_for(chip), "down", space=space)
    assert any(t.as_dict()["tma"] for t in table.tiles)
    shape = MoEShape(hidden_size=256, moe_intermediate_size=130, num_experts=2, num_experts_per_tok=1)
    work = rank_work(shape, Workload(name="w", num_tokens=110))
    chosen = estimate_layer(tables, chip, work, space=space).tiles[1].as_dict()
    assert not chosen["tma"]
    assert chosen["split_k"] <= 3
    gemm = layer_gemms(work)[1]
    with pytest.raises(NoTileError, match="16 bytes"):
        estimate_gemm(tables, chip, gemm, tile=next(t for t in table.tiles if t.as_dict()["tma"]))


def test_resident_blocks_obey_every_limit(tables: Tables) -> None:
    chip = load_chip("h100_sxm")
    table = tables.get(chip, kernel_for(chip), "gate_up")
    resident = resident_blocks(table)
    threads = table.columns["num_warps"] * 32
    assert (resident * table.columns["registers"] * threads <= 65536).all()
    assert (resident * table.columns["shared_bytes"] <= 233472).all()
    assert (resident * threads <= 2048).all()


def test_one_gemm_and_a_tile_that_cannot_run(tables: Tables) -> None:
    chip: Chip = load_chip("h100_sxm")
    gemm = GroupedGemm("down", np.array([5, 0, 300]), 2880, 704, 305, "bfloat16", accumulates=False)
    timing = estimate_gemm(tables, chip, gemm, tile=kernel_for(chip).default_tile(gemm.problem, 64, chip.target)).timing
    assert timing.latency_us > timing.bound_us
    huge = kernel_for(chip).tile_type.from_dict(
        {"block_m": 128, "block_n": 256, "block_k": 128, "num_warps": 8, "num_stages": 4}
    )
    with pytest.raises(NoTileError, match="shared memory: needs"):
        estimate_gemm(tables, chip, gemm, tile=huge)


def test_the_bound_is_the_roofline_by_hand() -> None:
    chip = load_chip("h100_sxm")
    shape = MoEShape(hidden_size=1024, moe_intermediate_size=512, num_experts=4, num_experts_per_tok=2)
    work = rank_work(shape, Workload(name="w", num_tokens=2, routing=parse_routing("balanced")))
    weights = 4 * 3 * 1024 * 512 * 2
    activations = 2 * 2 * 1024 * 2
    bound = layer_bound(chip, work)
    assert bound.memory_us == pytest.approx((weights + activations) / 3.35e12 * 1e6)
    assert bound.compute_us == pytest.approx(2 * 4 * 3 * 1024 * 512 / 989e12 * 1e6)
    assert bound.kind == "memory"
