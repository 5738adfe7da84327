"""The TPU's time: its visits are the kernel's own, and its straight lines hold between and beyond the probes."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_codesign.chips import TpuChip, load_chip
from moe_codesign.compiler.artifact import Compiled, TpuFacts
from moe_codesign.compiler.build import compile_all, requests_for
from moe_codesign.compiler.cache import ArtifactCache
from moe_codesign.compiler.kernels import kernel_for
from moe_codesign.compiler.tile_table import Tables
from moe_codesign.cost.ours.tpu import tile_times
from moe_codesign.cost.ours.tpu_step import step_of
from moe_codesign.cost.ours.tpu_visits import Groups, visits_of
from moe_codesign.domain.grouped_gemm import GroupedGemm
from moe_codesign.domain.grouped_gemms import GroupedGemms
from moe_codesign.execution import Done, Pool
from moe_kernels.pallas.visits import plan_visits
from moe_kernels.tile import PallasTile

TILE = PallasTile(tile_m=256, tile_k=32768, tile_n=256)


# Few numbers of groups and rows: JAX compiles the plan anew for each.
GROUPS_AND_ROWS = ((1, 0), (1, 37), (5, 200), (12, 7), (12, 543))


@settings(deadline=None, max_examples=60)
@given(
    numbers=st.sampled_from(GROUPS_AND_ROWS),
    cuts=st.lists(st.floats(0, 1), min_size=11, max_size=11),
    tile_m=st.sampled_from((16, 32, 48)),
)
def test_visits_are_the_kernels(numbers: tuple[int, int], cuts: list[float], tile_m: int) -> None:
    groups, num_rows = numbers
    ends = sorted(round(num_rows * cut) for cut in cuts[: groups - 1])
    sizes = np.diff([0, *ends, num_rows]).tolist()
    assert (len(sizes), sum(sizes)) == numbers
    gemm = GroupedGemm("down", np.array(sizes), 128, 128, num_rows, "bfloat16", accumulates=False)
    counted = Groups.of(GroupedGemms.of([gemm]))
    visits = visits_of(counted, np.full((1, 1), float(tile_m)), np.full((1, 1), 16.0))
    blocks = []
    for count, full, rows in zip(counted.count[:, 0], visits.full[:, 0], visits.rows[:, 0], strict=True):
        blocks += int(count) * [*[tile_m] * int(full), int(rows)]
    plan = plan_visits(jnp.asarray(sizes, jnp.int32), max(sum(sizes), 1), tile_m)
    its_rows = np.asarray(plan.end - plan.first)[: int(plan.counts[0])]
    # Rows are copied in blocks of eight, and nothing that a visit costs depends on less.
    assert sorted(blocks) == sorted(-(-its_rows // 8) * 8)
    assert min(counted.first[0, 0], tile_m) == (its_rows[0] if len(its_rows) else 0)


def compiled_steps(target: str, cases: list[tuple[int, int]]) -> list[float]:
    """Cycles of one more visit of (rows, K), compiled at this very size; runs in a child process."""
    from moe_codesign.compiler.tpu import analyse, prepare_process
    from moe_kernels.pallas.grouped_matmul.probes import probe

    folder = prepare_process()
    found = []
    for rows, k in cases:
        probes = [probe("down", TILE, visits, rows, k) for visits in (4, 8)]
        few, many = (analyse(target, p.function, p.arguments, "grouped_matmul", folder)[0] for p in probes)
        found.append((many - few) / 4)
    return found


@pytest.mark.parametrize("chip_name", ["tpu_v5p", "tpu_v6e", "tpu7x"])
def test_lines_hold_where_nothing_was_compiled(chip_name: str) -> None:
    chip = TpuChip.of(load_chip(chip_name))
    requests = requests_for(kernel_for(chip), chip, ("down",), "bfloat16", [TILE])
    ((request, outcome),) = compile_all(requests.values(), ArtifactCache(), jobs=1).items()
    assert isinstance(outcome, Compiled)
    facts = outcome.facts
    assert isinstance(facts, TpuFacts)
    cases = [(1, 1536), (2, 4096)]
    with Pool(1) as pool:
        compiled = pool.call(compiled_steps, chip.target, [(128 * b, k) for b, k in cases], time_limit_s=300)
    assert isinstance(compiled, Done), compiled
    for (buckets, k), cycles in zip(cases, compiled.value, strict=True):
        assert facts.step_cycles(buckets, k) - facts.issue_cycles == pytest.approx(cycles, rel=0.02)
    step = step_of(request, facts, chip)
    # The matrix units cannot be busier than full, nor a step of 256 x 2048 x 256 be under a third of that.
    assert step.cycles["matrix units"] < step.cycles["issue and drain"] < 3 * step.cycles["matrix units"]
    assert step.advice


@pytest.fixture(scope="module")
def tables() -> Tables:
    return Tables(jobs=2)


SPACE = {
    "tile_m": (16, 256),
    "tile_n": (256,),
    "tile_k": (32768,),
    "weight_buffers": (3,),
    "rows_outer": (False, True),
    "cores": (1,),
}


def times(tables: Tables, sizes: list[int], k: int = 2048, n: int = 1024) -> dict[str, float]:
    chip = TpuChip.of(load_chip("tpu_v6e"))
    table = tables.get(chip, kernel_for(chip), "down", space=SPACE)
    gemm = GroupedGemm("down", np.array(sizes), k, n, sum(sizes), "bfloat16", accumulates=False)
    return {t.label(): float(us) for t, us in zip(table.tiles, tile_times(table, gemm).total_us, strict=True)}


def test_empty_groups_cost_nothing(tables: Tables) -> None:
    assert times(tables, [100, 0, 0, 60, 0]) == times(tables, [100, 60])


def test_no_rows_take_no_time(tables: Tables) -> None:
    assert max(times(tables, [0, 0]).values()) < 1.0


def test_a_visit_pays_for_the_products_of_its_buckets(tables: Tables) -> None:
    chip = TpuChip.of(load_chip("tpu_v6e"))
    fast = chip.model_copy(update={"memory": chip.memory.model_copy(update={"hbm_bytes_per_s": 1e18})})
    tile = PallasTile(tile_m=512, tile_k=32768, tile_n=256)
    table = dataclasses.replace(tables.get(chip, kernel_for(chip), "down", only=tile), chip=fast)

    def us(rows: int) -> float:
        gemm = GroupedGemm("down", np.full(64, rows), 2048, 1024, 64 * rows, "bfloat16", accumulates=False)
        return float(tile_times(table, gemm).total_us[0])

    facts = table.facts[0]
    assert isinstance(facts, TpuFacts)
    steps = 64 * 4 / (chip.core.profile_cycles_per_ns * 1e3)
    bucket_us = steps * (facts.bucket_cycles + facts.depth_bucket_cycles * 2048)
    product_us = steps * (facts.fixed_cycles + facts.depth_fixed_cycles * 2048)
    assert product_us > 0.3 * bucket_us
    # One bucket or two are one product, three are two and one, and four, a full visit, are one.
    assert us(256) - us(128) == pytest.approx(bucket_us, rel=1e-3)
    assert us(384) - us(256) == pytest.approx(bucket_us + product_us, rel=1e-3)
    assert us(512) - us(384) == pytest.approx(bucket_us - product_us, rel=1e-3)


def test_a_visit_that_is_not_full_pays_for_each_bucket(tables: Tables) -> None:
    full, short = times(tables, [256]), times(tables, [250])
    tall = "256x32768x256 b128 w3 r2"
    assert short[tall] >= full[tall] * 0.95


def test_a_group_of_several_visits_reads_its_weights_once_where_they_stay(tables: Tables) -> None:
    some = times(tables, [2048] * 4, k=4096)
    tall = "256x32768x256 b128 w3 r2"
    low = "16x32768x256 b128 w3 r2"
    assert some[low] < some[f"{low} rows"], "16 rows a visit: rows that stay read the weights 128 times"
    assert some[tall] < some[low]


def test_more_of_anything_never_costs_less(tables: Tables) -> None:
    base = times(tables, [300, 20, 5])
    for more in (times(tables, [300, 20, 5, 8]), times(tables, [300, 28, 5]), times(tables, [300, 20, 5], n=1280)):
        for label, us in base.items():
            assert more[label] >= us * (1 - 1e-9), label


def test_cores_share_the_columns(tables: Tables) -> None:
    chip = TpuChip.of(load_chip("tpu_v5p"))
    table = tables.get(chip, kernel_for(chip), "down", space={**SPACE, "tile_m": (256,), "cores": (1, 2)})
    gemm = GroupedGemm("down", np.array([256] * 8), 2048, 1024, 2048, "bfloat16", accumulates=False)
    by_tile = dict(zip(table.tiles, tile_times(table, gemm).total_us, strict=True))
    pairs = [
        (us, by_tile[one])
        for tile, us in by_tile.items()
        if isinstance(tile, PallasTile) and tile.cores == 2 and (one := dataclasses.replace(tile, cores=1)) in by_tile
    ]
    assert len(pairs) == 2
    assert all(two < 0.6 * one for two, one in pairs)
