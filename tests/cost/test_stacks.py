"""The physics of a stack's fused operation: its tiles, loads, terms and what must hold of any time."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_codesign.calibrations.stacks import StackCoefficients
from moe_codesign.chips import GpuChip, load_chip
from moe_codesign.cost.bound import layer_bound
from moe_codesign.cost.stacks import model as calibration
from moe_codesign.cost.stacks import physics as fused_moe
from moe_codesign.cost.stacks import shipped
from moe_codesign.cost.stacks.columns import Columns, columns_and_failures, columns_of, with_others_on_first
from moe_codesign.cost.stacks.physics import Terms
from moe_codesign.cost.stacks.tiles import rule_tiles
from moe_codesign.domain.rank import rank_work
from moe_codesign.domain.routing import Uniform, parse_routing
from moe_codesign.domain.shape import MoEShape
from moe_codesign.domain.token_counts import token_counts
from moe_codesign.domain.workload import Workload
from moe_codesign.errors import UserError
from moe_codesign.formats.tuned_files import tuned_tiles
from moe_codesign.stacks import default_rule
from moe_codesign.stacks.tiles import BLOCK_M

SHAPE = MoEShape(hidden_size=4096, moe_intermediate_size=2048, num_experts=64, num_experts_per_tok=8)


def terms_of(columns: Columns, name: str, stack: str, dtype: str = "bfloat16") -> Terms:
    chip = GpuChip.of(load_chip(name))
    return fused_moe.terms(columns, chip, dtype, rule_tiles(columns, stack, dtype))


def work(tokens: int, routing: str = "balanced", *, tp: int = 1, ep: int = 1) -> Workload:
    return Workload(name="w", num_tokens=tokens, routing=parse_routing(routing), tp=tp, ep=ep)


@pytest.mark.parametrize(
    ("stack", "dtype", "tokens", "tile"),
    [
        ("vllm", "bfloat16", 32, (16, 64, 128, 1, 4, 4)),
        ("vllm", "bfloat16", 512, (64, 128, 64, 1, 8, 3)),
        ("vllm", "bfloat16", 16384, (128, 128, 64, 16, 8, 3)),
        ("vllm", "fp8", 4096, (128, 128, 128, 1, 8, 3)),
        ("vllm", "fp8_block", 8, (16, 64, 128, 1, 4, 3)),
        ("vllm", "fp8_block", 100, (64, 128, 128, 32, 4, 3)),
        ("sglang", "bfloat16", 64, (16, 32, 64, 1, 4, 3)),
        ("sglang", "bfloat16", 65, (64, 64, 32, 8, 4, 3)),
        ("sglang", "fp8_block", 1, (64, 128, 128, 32, 4, 3)),
    ],
)
def test_the_stacks_own_tile(stack: str, dtype: str, tokens: int, tile: tuple[int, ...]) -> None:
    one = np.ones(1)
    found = default_rule(stack)(dtype, tokens * one, 64 * one)
    assert tuple(int(values[0]) for values in dataclasses.astuple(found)) == tile


def test_loads_are_of_the_busiest_rank() -> None:
    columns = columns_of([(SHAPE, work(100, "zipf:1.2", ep=8)), (SHAPE, work(100, ep=8))])
    assert columns.rows[0] > 1.5 * columns.rows[1]
    assert columns.rows[1] == 100
    assert columns.active[1] == 8
    assert columns.row_tiles[BLOCK_M.index(16)][1] == 8


@settings(deadline=None, max_examples=50)
@given(tokens=st.integers(1, 20_000), ep=st.sampled_from([2, 4, 8, 16, 64]), top_k=st.sampled_from([1, 2, 8]))
def test_a_rank_that_runs_all_choices(tokens: int, ep: int, top_k: int) -> None:
    shape = dataclasses.replace(SHAPE, num_experts_per_tok=top_k)
    split = columns_of([(shape, work(tokens, "uniform", ep=ep))])
    whole = with_others_on_first(split)
    assert max(split.largest[0], split.rows[0] / top_k) - 1e-6 <= whole.num_tokens <= min(tokens, split.rows[0])
    assert whole.rows == whole.num_tokens * top_k
    assert whole.largest >= whole.rows - split.rows
    assert whole.local_experts == whole.experts == split.local_experts
    # No tile is fuller than full, none without a row, and larger ones are fewer.
    for height, count in zip(BLOCK_M, whole.row_tiles, strict=True):
        assert whole.rows / height - 1e-6 <= count <= whole.rows / height + whole.active + 1e-6
    assert (np.diff(np.array(whole.row_tiles)[:, 0]) <= 1e-6).all()
    if top_k == 1:
        assert whole.rows == pytest.approx(split.rows)
        assert np.allclose(whole.row_tiles, split.row_tiles)


def test_what_a_stack_does_not_run_is_refused() -> None:
    with pytest.raises(UserError, match="n_shared_experts: got 1"):
        columns_of([(dataclasses.replace(SHAPE, n_shared_experts=1), work(4))])
    with pytest.raises(UserError, match="not a multiple of tp 3"):
        columns_of([(SHAPE, work(4, tp=3))])
    with pytest.raises(UserError, match="a100_sxm has no fp8"):
        terms_of(columns_of([(SHAPE, work(4))]), "a100_sxm", "vllm", "fp8")
    with pytest.raises(UserError, match="stack"):
        terms_of(columns_of([(SHAPE, work(4))]), "h100_sxm", "tgi")


def test_parts_add_up_and_the_largest_is_named() -> None:
    columns = columns_of([(SHAPE, work(1)), (SHAPE, work(16384))])
    t = terms_of(columns, "h100_sxm", "vllm")
    parts = fused_moe.parts_us(StackCoefficients(), t)
    assert sum(parts.values()) == pytest.approx(fused_moe.total_us(StackCoefficients(), t))
    x = StackCoefficients()
    first, second = fused_moe.limiters(x, t, fused_moe.parts_us(x, t))
    assert first == "memory"
    assert second in ("compute", "l2")


@settings(deadline=None, max_examples=150)
@given(
    key=st.sampled_from(sorted(shipped.every())),
    hidden=st.integers(4, 128).map(lambda n: 64 * n),
    width=st.integers(1, 128).map(lambda n: 128 * n),
    experts=st.integers(0, 5).map(lambda n: 16 * 2**n),
    top_k=st.integers(1, 16),
    tokens=st.integers(1, 30_000),
    routing=st.sampled_from(["balanced", "uniform", "power_law:1.2"]),
    ep=st.sampled_from([1, 4, 16]),
    gated=st.booleans(),
)
def test_no_time_of_a_stack_beats_physics(
    key: tuple[str, str, str], hidden: int, width: int, experts: int, top_k: int, tokens: int, routing: str, ep: int,
    gated: bool,
) -> None:  # fmt: skip
    name, stack, dtype = key
    shape = MoEShape(
        hidden_size=hidden, moe_intermediate_size=width, num_experts=experts, num_experts_per_tok=top_k, gated=gated
    )
    chip, load = GpuChip.of(load_chip(name)), dataclasses.replace(work(tokens, routing, ep=ep), dtype=dtype)
    found = shipped.find(chip, stack, dtype).value
    said = found.predict(chip, columns_of([(shape, load)]))
    if routing == "balanced":
        assert said.bound_us[0] == pytest.approx(layer_bound(chip, rank_work(shape, load)).us)
    assert said.bound_us[0] <= said.low_us[0] <= said.latency_us[0] <= said.high_us[0]
    assert np.isfinite(said.high_us[0])


@pytest.mark.parametrize("key", sorted(shipped.every()), ids="-".join)
def test_more_work_takes_longer(key: tuple[str, str, str]) -> None:
    """Within 10 %: a rule may change to a better tile on the way, and trees have steps."""
    name, stack, dtype = key
    chip, found = GpuChip.of(load_chip(name)), shipped.find(GpuChip.of(load_chip(name)), stack, dtype).value
    tokens = [1, 16, 128, 1024, 4096, 16384]
    wider = dataclasses.replace(SHAPE, moe_intermediate_size=4096)
    problems = [(shape, work(t)) for shape in (SHAPE, wider) for t in tokens]
    times = found.predict(chip, columns_of(problems)).latency_us
    narrow, wide = times[: len(tokens)], times[len(tokens) :]
    assert (narrow[1:] > 0.9 * narrow[:-1]).all()
    assert (wide > 0.9 * narrow).all()


def test_shipped_calibrations_are_whole() -> None:
    found = shipped.every(shipped_only=True)
    assert found
    for name, stack, dtype in found:
        one = shipped.find(GpuChip.of(load_chip(name)), stack, dtype, shipped_only=True).value
        assert one.is_of(GpuChip.of(load_chip(name)))
        assert one.file.held_out is not None
        # No set is worse than physics alone.
        assert one.file.held_out.mape <= one.file.held_out.physics_mape
        assert one.file.rows > 1000


def test_a_chip_without_rows_takes_the_nearest_ones_and_says_so() -> None:
    columns = columns_of([(SHAPE, work(64))])
    for name, donor in (("mi300x", "h200_sxm"), ("b200", "b300"), ("h200_sxm", "h100_sxm")):
        chip = GpuChip.of(load_chip(name))
        found = shipped.find(chip, "sglang", "bfloat16", without=name)
        assert (found.chip, found.own, found.distance > 0) == (donor, False, True)
        said = found.value.predict(chip, columns)
        assert donor in said.note[0]
        own = dataclasses.replace(found.value, file=found.value.file.model_copy(update={"chip": name}))
        narrow = own.predict(chip, columns)
        assert said.high_us[0] / said.latency_us[0] > narrow.high_us[0] / narrow.latency_us[0]


def test_new_chips_take_the_nearest_of_their_architecture_but_the_width_of_another_ones() -> None:
    columns = columns_of([(SHAPE, work(64))])

    def width(name: str, donor: str) -> float:
        chip = GpuChip.of(load_chip(name))
        found = shipped.find(chip, "sglang", "bfloat16", without=name, shipped_only=True)
        assert found.chip == donor
        said = found.value.predict(chip, columns)
        return float(np.log(said.high_us[0] / said.latency_us[0] / chip.doubt)) / found.value.file.interval[0]

    # No pair of withheld chips is as far apart as these are from their donors.
    for name, donor in (("h20", "h200_sxm"), ("l4", "l40s"), ("gb10", "rtx_pro_6000"), ("mi325x", "h200_sxm")):
        assert width(name, donor) == pytest.approx(3.0)
    assert width("h200_sxm", "h100_sxm") == pytest.approx(1.5)


def test_a_problem_outside_of_the_fit_has_a_wider_interval_and_says_so() -> None:
    chip = GpuChip.of(load_chip("h100_sxm"))
    found = shipped.find(chip, "vllm", "bfloat16").value
    huge = dataclasses.replace(SHAPE, hidden_size=32768)
    said = found.predict(chip, columns_of([(SHAPE, work(4096)), (huge, work(4096))]))
    assert said.note == ["", "outside the measured range: hidden"]
    width = said.high_us / said.latency_us
    assert width[1] == pytest.approx(width[0] ** 2)


def test_a_stacks_tuned_file_comes_before_its_rule(tmp_path: Path) -> None:
    tile = {"BLOCK_SIZE_N": 256, "BLOCK_SIZE_K": 64, "GROUP_SIZE_M": 16, "num_warps": 8, "num_stages": 4}
    stem = "E=64,N=2048,device_name=NVIDIA_B200"
    block = f"{stem},dtype=fp8_w8a8,block_shape=[128, 128]"

    def write(name: str, **heights: int) -> None:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(
            json.dumps({"triton_version": "3", **{m: {"BLOCK_SIZE_M": h, **tile} for m, h in heights.items()}})
        )

    write(f"triton_3_5_1/{stem}.json", **{"64": 16, "4096": 128})
    write(f"triton_3_4_0/{stem}.json", **{"64": 64})
    write(f"{block}.json", **{"1": 32})
    chip, found = GpuChip.of(load_chip("b200")), shipped.find(GpuChip.of(load_chip("b200")), "sglang", "bfloat16").value
    other = dataclasses.replace(SHAPE, moe_intermediate_size=1024)
    columns = columns_of([(SHAPE, work(60)), (SHAPE, work(9000)), (other, work(60))])
    device = chip.device_names
    said, rule = found.predict(chip, columns, tuned_tiles(tmp_path, device, "bfloat16")), found.predict(chip, columns)
    assert [said.tiles.of_row(i).as_dict()["BLOCK_SIZE_M"] for i in range(3)] == [16, 128, 16]
    assert [said.tiles.of_row(i).as_dict()["BLOCK_SIZE_N"] for i in range(3)] == [256, 256, 32]
    assert said.latency_us[2] == rule.latency_us[2]
    assert said.latency_us[1] != rule.latency_us[1]
    blocks = tuned_tiles(tmp_path, device, "fp8_block")
    narrow = shipped.find(chip, "sglang", "fp8_block").value.predict(chip, columns, blocks)
    assert narrow.tiles.of_row(0).as_dict()["BLOCK_SIZE_M"] == 32
    (tmp_path / "E=8,N=8,device_name=NVIDIA_B200,dtype=fp8_w8a8.json").write_text("{")
    damaged = tuned_tiles(tmp_path, device, "fp8").both[8, 8]
    assert damaged.error, "an error of this shape alone"


def test_a_long_table_is_answered_in_parts_row_by_row_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    chip, found = (
        GpuChip.of(load_chip("h100_sxm")),
        shipped.find(GpuChip.of(load_chip("h100_sxm")), "sglang", "bfloat16").value,
    )
    wide = dataclasses.replace(SHAPE, hidden_size=32768)
    columns = columns_of([(shape, work(tokens)) for tokens in (1, 60, 700, 9000, 60000) for shape in (SHAPE, wide)])
    whole = found.predict(chip, columns)
    assert len(set(whole.note)) > 1
    assert len(set(whole.limiter)) > 1
    monkeypatch.setattr(calibration, "_CHUNK", 3)
    parts = found.predict(chip, columns)
    for name in ("latency_us", "low_us", "high_us", "bound_us", "limiter", "note"):
        assert list(getattr(parts, name)) == list(getattr(whole, name)), name
    assert parts.parts_us.keys() == whole.parts_us.keys()
    assert all((parts.parts_us[name] == whole.parts_us[name]).all() for name in parts.parts_us)
    assert [parts.tiles.of_row(i) for i in range(len(columns))] == [whole.tiles.of_row(i) for i in range(len(columns))]


@pytest.mark.parametrize("dtype", ["bfloat16", "fp8_block", "mxfp4", "int4"])
@pytest.mark.parametrize("ep", [1, 8])
def test_there_is_one_physical_bound(dtype: str, ep: int) -> None:
    """Weights of 4 bits, activations of 16: the columns counted both at the weights' bytes."""
    chip, load = GpuChip.of(load_chip("h100_sxm")), dataclasses.replace(work(4096, ep=ep), dtype=dtype)
    said = fused_moe.bound_us(columns_of([(SHAPE, load)]), chip, dtype)
    assert said[0] == pytest.approx(layer_bound(chip, rank_work(SHAPE, load)).us, rel=1e-12)


@pytest.mark.parametrize(("tokens", "ep"), [(24, 8), (300, 1), (700, 4)])
def test_without_a_seed_loads_are_the_mean_over_draws(tokens: int, ep: int) -> None:
    expected = columns_of([(SHAPE, work(tokens, "uniform", ep=ep))])
    seeds = range(0, 200, 5)
    drawn = columns_of([(SHAPE, dataclasses.replace(work(tokens, "uniform", ep=ep), seed=seed)) for seed in seeds])
    for name in ("rows", "active", "largest", "entering"):
        assert getattr(expected, name)[0] == pytest.approx(getattr(drawn, name).mean(), rel=0.015), name
    for one, many in zip(expected.row_tiles, drawn.row_tiles, strict=True):
        assert one[0] == pytest.approx(many.mean(), rel=0.015)
    chip = GpuChip.of(load_chip("h100_sxm"))
    found = shipped.find(chip, "vllm", "bfloat16").value
    times = found.predict(chip, drawn).latency_us
    assert found.predict(chip, expected).latency_us[0] == pytest.approx(times.mean(), rel=0.02)


def test_a_seed_asks_for_five_draws_from_it_on() -> None:
    """Measured rows were fitted so."""
    drawn = columns_of([(SHAPE, dataclasses.replace(work(100, "uniform", ep=8), seed=3))])
    each = [token_counts(Uniform(), 100, 64, 8, seed).reshape(8, 8) for seed in range(3, 8)]
    busiest = np.array([one[one.sum(axis=1).argmax()] for one in each])
    assert drawn.rows[0] == busiest.sum(axis=1).mean()
    assert drawn.active[0] == (busiest > 0).sum(axis=1).mean()
    assert drawn.largest[0] == busiest.max(axis=1).mean()


def test_a_problem_that_cannot_be_counted_leaves_the_others() -> None:
    good, bad = work(100, "uniform"), work(100, "histogram:[1, 2]")
    columns, failed = columns_and_failures([(SHAPE, good), (SHAPE, bad), (SHAPE, work(100))])
    assert list(failed) == [1]
    assert columns.rows.tolist() == [800, 800]
