"""The terms of the GPU's physics, each against what a hand would count."""

import dataclasses
import itertools

import numpy as np
import pytest

from moe_codesign.calibrations.ours import OurCoefficients
from moe_codesign.chips import GpuChip, load_chip
from moe_codesign.compiler.kernels import kernel_for
from moe_codesign.compiler.tile_table import TileTable
from moe_codesign.cost.occupancy import LAUNCH_US
from moe_codesign.cost.ours import gpu
from moe_codesign.cost.ours.gpu_tiles import GpuTiles
from moe_codesign.cost.ours.gpu_work import Work, work_of
from moe_codesign.domain.grouped_gemm import GroupedGemm
from moe_codesign.domain.grouped_gemms import GroupedGemms
from moe_kernels.kernel import Op
from moe_kernels.tile import TritonTile

CHIP = GpuChip.of(load_chip("h100_sxm"))
TILE = TritonTile(block_m=128, block_n=256, block_k=64, num_warps=8, num_stages=4)
FACTS = {
    "registers": 168.0, "shared_bytes": 4 * (128 + 256) * 64 * 2.0, "spill_bytes": 0.0, "loop_instructions": 100.0,
    "waves_per_simd": 0.0, "wide_mma": 1.0, "narrow_mma": 0.0,
}  # fmt: skip


def table(op: Op, *tiles: TritonTile, **facts: float) -> TileTable:
    columns = {name: np.array([float(getattr(t, name)) for t in tiles]) for name in TritonTile.fields()}
    columns |= {name: np.full(len(tiles), value) for name, value in (FACTS | facts).items()}
    return TileTable(kernel_for(CHIP), CHIP, op, tiles, (), columns, {})


def gemm(op: Op, rows: list[int], k: int = 2048, n: int = 4096, tokens: int = 64) -> GroupedGemm:
    return GroupedGemm(op, np.array(rows), k, n, tokens, "bfloat16", accumulates=op == "down")


def work(op: Op, rows: list[int], *tiles: TritonTile, k: int = 2048, n: int = 4096) -> tuple[Work, GpuTiles]:
    """Of one GEMM: each array [tiles]."""
    own = GpuTiles.of(table(op, *tiles), "bfloat16")
    found = work_of(own, GroupedGemms.of([gemm(op, rows, k=k, n=n)]))
    shape = (1, len(tiles))
    arrays = {field.name: np.broadcast_to(getattr(found, field.name), shape)[0] for field in dataclasses.fields(found)}
    return Work(**arrays), own


def test_matrix_work_and_waves() -> None:
    down, tiles = work("down", [1024] * 8, TILE)
    flops = 2 * 128 * 256 * 64
    assert tiles.matrix_us[0] == pytest.approx(1e6 * flops / (989e12 / 132))
    assert down.steps[0] == 2048 / 64
    # 8 experts of 8 row tiles by 16 column tiles, one block a core.
    assert down.fill[0] == pytest.approx(8 * 8 * 16 / 132)
    _, of_up = work("gate_up", [1024] * 8, TILE)
    assert of_up.matrix_us[0] == pytest.approx(2 * tiles.matrix_us[0])


def test_wide_instructions_read_both_operands_from_shared_memory() -> None:
    # Two groups of warps, 64 rows each, 256 columns, 16 of K at a time: (64 + 256) values, twice, four times.
    _, tiles = work("down", [128], TILE)
    assert tiles.shared_us[0] == pytest.approx(1e6 * 2 * 4 * (64 + 256) * 16 * 2 / (128 * CHIP.core.clock_hz))
    one = dataclasses.replace(TILE, num_warps=4)
    _, tiles = work("down", [128], TILE, one)
    assert tiles.is_alone.tolist() == [0.0, 1.0]
    # Swapped, the weights are the first operand: four groups' worth of 64 rows, 16 token rows the second.
    swapped = TritonTile(block_m=16, block_n=256, block_k=64, num_warps=4, num_stages=3, swap_ab=True)
    _, tiles = work("down", [16], swapped)
    assert tiles.shared_us[0] == pytest.approx(1e6 * 4 * 4 * (64 + 16) * 16 * 2 / (128 * CHIP.core.clock_hz))


def test_a_descriptor_fetches_rows_that_an_expert_does_not_have() -> None:
    few = [5] * 10
    by_pointer, by_descriptor = TILE, dataclasses.replace(TILE, tma=True)
    swapped = dataclasses.replace(TILE, tma=True, swap_ab=True)
    down, _ = work("down", few, by_pointer, by_descriptor, swapped)
    weights = 10 * 2048 * 4096 * 2
    rows = np.array([50, 10 * 128, 50]) * 2048 * 2 * (4096 / 256)
    assert down.l2_us == pytest.approx(1e6 * (weights + rows) / CHIP.memory.l2_bytes_per_s)
    # GEMM 1 gathers its rows, by pointers always.
    up, _ = work("gate_up", few, by_pointer, by_descriptor)
    assert up.l2_us[0] == up.l2_us[1]


def test_a_forgotten_column_is_read_again_for_every_band() -> None:
    one, eight = dataclasses.replace(TILE, group_m=1), dataclasses.replace(TILE, group_m=8)
    large, _ = work("down", [1024, 1024], one, eight, k=16384, n=16384)
    assert large.rereads_us[1] == 0
    assert large.rereads_us[0] == pytest.approx(7 * large.weight_us[0], rel=0.02)
    small, _ = work("down", [1024, 1024], one, k=1024, n=1024)
    assert small.rereads_us[0] < 0.02 * small.weight_us[0]


def test_a_split_gemm_1_is_summed_by_another_kernel() -> None:
    split = dataclasses.replace(TILE, split_k=4)
    up, _ = work("gate_up", [16] * 4, TILE, split)
    assert up.reduce_us.tolist() == [0.0, LAUNCH_US]
    assert up.add_us.tolist() == [0.0, pytest.approx(1e6 * 2 * 4 * 2 * 64 * 4096 * 4 / CHIP.memory.l2_bytes_per_s)]
    down, _ = work("down", [16] * 4, TILE, split)
    assert down.reduce_us.tolist() == [0.0, 0.0]
    assert down.add_us[1] == pytest.approx(4 * down.add_us[0])


def test_a_dirty_cache_is_written_back_no_more_than_it_holds() -> None:
    bandwidth = CHIP.memory.hbm_bytes_per_s * CHIP.memory.hbm_efficiency
    large, _ = work("down", [16] * 64, TILE)
    assert large.dirty_us[0] == pytest.approx(1e6 * CHIP.memory.l2_bytes / bandwidth)
    small, _ = work("down", [16], TILE)
    assert small.dirty_us[0] == pytest.approx(1e6 * (2048 * 4096 + 16 * 2048) * 2 / bandwidth)


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(OurCoefficients) if f.name != "overlap"])
def test_no_coefficient_makes_a_gemm_faster(name: str) -> None:
    tiles = [
        TILE,
        dataclasses.replace(TILE, num_warps=4, block_n=64),
        dataclasses.replace(TILE, block_m=16, swap_ab=True, split_k=2),
        dataclasses.replace(TILE, persistent=True, tma=True, num_stages=3),
        dataclasses.replace(TILE, block_n=64),
    ]
    bases = (OurCoefficients(), dataclasses.replace(OurCoefficients(), fetch=0.01, latency=0.1))
    ops: tuple[Op, ...] = ("gate_up", "down")
    changed = False
    for op in ops:
        for wide in (0.0, 1.0):
            for rows, base, loop in itertools.product(([1] * 4, [300, 0, 5, 70], [4096] * 16), bases, (20.0, 400.0)):
                held = table(op, *tiles, wide_mma=wide, spill_bytes=16.0, loop_instructions=loop)
                less = gpu.tile_times(held, gemm(op, rows), base).total_us
                more = dataclasses.replace(base, **{name: 1.5 * getattr(base, name)})
                slower = gpu.tile_times(held, gemm(op, rows), more).total_us
                assert (slower >= less * (1 - 1e-9)).all()
                changed |= bool((slower > less * (1 + 1e-9)).any())
    assert changed, "a coefficient that nothing depends on"


def test_padding_and_waves_can_be_left_out() -> None:
    held, problem = table("down", TILE), gemm("down", [5, 130])
    whole = gpu.tile_times(held, problem, OurCoefficients()).total_us
    no_padding = gpu.tile_times(held, problem, OurCoefficients(), {"padding"}).total_us
    neither = gpu.tile_times(held, problem, OurCoefficients(), {"padding", "waves"}).total_us
    assert whole[0] > no_padding[0] >= neither[0]
