"""Many problems priced together have the times, tiles and notes that each has by itself."""

import itertools
from collections.abc import Sequence

import numpy as np
import pytest

from moe_codesign.answers.predictor import Predictor
from moe_codesign.chips import load_chip
from moe_codesign.compiler.kernels import kernel_for
from moe_codesign.compiler.tile_table import Tables
from moe_codesign.cost.estimate import Estimate, NoTileError
from moe_codesign.cost.ours.chosen import fastest
from moe_codesign.cost.ours.losses import losses_of
from moe_codesign.cost.ours.model import OurKernels, estimate_gemm, estimate_layer, rank_tiles
from moe_codesign.cost.ours.prices import GpuPrices, TpuPrices
from moe_codesign.cost.ours.times import OurTimes, gemm_times, layer_times
from moe_codesign.domain.failure import Failure
from moe_codesign.domain.grouped_gemm import GroupedGemm, layer_gemms
from moe_codesign.domain.grouped_gemms import GroupedGemms
from moe_codesign.domain.question import OurGemm, OurLayer
from moe_codesign.domain.rank import RankWork, rank_work
from moe_codesign.domain.rank_works import RankWorks
from moe_codesign.domain.routing import parse_routing
from moe_codesign.domain.shape import MoEShape
from moe_codesign.domain.workload import Workload

CHIPS = (("h100_sxm", "bfloat16"), ("b200", "fp8_block"), ("mi300x", "bfloat16"), ("tpu_v6e", "bfloat16"))


@pytest.fixture(scope="module")
def tables() -> Tables:
    return Tables()


def works(dtype: str, count: int = 24) -> list[RankWork]:
    """Shares of layers of many sizes: decode and prefill, few and many experts, ranks without a row."""
    rng = np.random.default_rng(3)
    found = []
    routings = itertools.cycle(["balanced", "uniform", "zipf:1", "power_law:1.2"])
    for routing in itertools.islice(routings, count):
        experts, ep = 8 * int(rng.integers(1, 33)), int(rng.choice([1, 2, 8]))
        shape = MoEShape(
            hidden_size=128 * int(rng.integers(8, 57)),
            moe_intermediate_size=128 * int(rng.integers(2, 33)),
            num_experts=experts,
            num_experts_per_tok=int(rng.integers(1, 9)),
            n_shared_experts=int(rng.integers(0, 2)),
        )
        tokens = int(2 ** rng.uniform(0, 12))
        workload = Workload(name="w", num_tokens=tokens, dtype=dtype, ep=ep, routing=parse_routing(routing))
        found.append(rank_work(shape, workload))
    return found


def alike(together: Estimate, alone: Estimate) -> None:
    assert (together.tiles, together.notes, together.kernel) == (alone.tiles, alone.notes, alone.kernel)
    for name in ("latency_us", "low_us", "high_us", "bound_us"):
        assert getattr(together.timing, name) == pytest.approx(getattr(alone.timing, name), rel=1e-12)
    assert together.timing.parts_us == pytest.approx(alone.timing.parts_us, rel=1e-12)
    assert (together.timing.limiter, together.timing.grade) == (alone.timing.limiter, alone.timing.grade)
    assert together.losses_us == pytest.approx(alone.losses_us, rel=1e-9, abs=1e-9 * alone.timing.latency_us)


@pytest.mark.parametrize(("name", "dtype"), CHIPS)
@pytest.mark.parametrize("cells", [1, 3000, 10**9])
def test_layers_together_are_what_each_is_alone(
    name: str, dtype: str, cells: int, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    chip, some = load_chip(name), works(dtype)
    alone = [estimate_layer(tables, chip, work) for work in some]
    for kind in (GpuPrices, TpuPrices):
        monkeypatch.setattr(kind, "cells", cells)
    times = layer_times(tables, chip, RankWorks.of(some))
    for place, one in enumerate(alone):
        alike(times.estimate(place), one)
        assert times.latency_us[place] == one.timing.latency_us


@pytest.mark.parametrize(("name", "dtype"), CHIPS)
def test_losses_of_many_are_those_of_each(name: str, dtype: str, tables: Tables) -> None:
    chip, some = load_chip(name), works(dtype, 6)
    times = layer_times(tables, chip, RankWorks.of(some))
    assert isinstance(times, OurTimes)
    for lost, work in zip(losses_of(times), some, strict=True):
        assert lost == pytest.approx(estimate_layer(tables, chip, work, with_losses=True).losses_us, rel=1e-9)


@pytest.mark.parametrize(("name", "dtype"), CHIPS)
def test_the_tile_is_the_fastest_of_all_that_fit(name: str, dtype: str, tables: Tables) -> None:
    chip = load_chip(name)
    gemms = [gemm for work in works(dtype, 12) for gemm in layer_gemms(work)[1:]]
    table = tables.get(chip, kernel_for(chip), "down", dtype)
    chosen = fastest(table, GroupedGemms.of(gemms))
    for gemm, row, us in zip(gemms, chosen.rows, chosen.times.total_us, strict=True):
        every = rank_tiles(table, gemm).total_us
        every[list(table.unsupported(gemm.problem))] = np.inf
        assert row == int((every <= every.min() * (1 + 1e-12)).argmax())
        assert us == pytest.approx(every.min(), rel=1e-12)


def test_one_problem_that_no_tile_takes_is_refused_alone(tables: Tables) -> None:
    chip = load_chip("tpu_v6e")
    sizes = (1024, 1020, 2048)
    shapes = [
        MoEShape(hidden_size=hidden, moe_intermediate_size=512, num_experts=8, num_experts_per_tok=2)
        for hidden in sizes
    ]
    some = [rank_work(shape, Workload(name="w", num_tokens=64)) for shape in shapes]
    times = layer_times(tables, chip, RankWorks.of(some))
    assert list(times.refused) == [1]
    with pytest.raises(NoTileError, match="takes K = 1020: K = 1020 is not a multiple of 8"):
        times.estimate(1)
    alike(times.estimate(2), estimate_layer(tables, chip, some[2]))
    questions = [OurLayer(shape=shape, workload=Workload(name="w", num_tokens=64)) for shape in shapes]
    answers = OurKernels(chip, tables).answer(questions)
    assert [isinstance(answer, Failure) for answer in answers] == [False, True, False]


def test_questions_of_every_kind_are_answered_in_their_order(tables: Tables) -> None:
    chip = load_chip("h100_sxm")
    kernel = kernel_for(chip)
    rows = np.array([5, 0, 40])
    gemms = [GroupedGemm("down", rows, 1024, n, 45, "bfloat16", accumulates=n == 512) for n in (512, 768)]
    tile = kernel.default_tile(gemms[0].problem, 16, chip.target)
    shape = MoEShape(hidden_size=1024, moe_intermediate_size=512, num_experts=8, num_experts_per_tok=2)

    def layer(tokens: int, **more: object) -> OurLayer:
        return OurLayer(shape=shape, workload=Workload(name="w", num_tokens=tokens, **more))  # type: ignore[arg-type]

    questions: Sequence[OurLayer | OurGemm] = [
        layer(64),
        OurGemm(gemm=gemms[0]),
        layer(8, dtype="fp8_block"),
        layer(64, ep=3),
        OurGemm(gemm=gemms[1], tile=tile),
        layer(9, dtype="fp4"),
        layer(7),
    ]
    model = OurKernels(chip, tables)
    together = model.answer(questions)
    for question, answer in zip(questions, together, strict=True):
        (alone,) = model.answer([question])
        if isinstance(answer, Failure):
            assert answer == alone
        else:
            assert isinstance(alone, Estimate)
            alike(answer, alone)
    assert [i for i, answer in enumerate(together) if isinstance(answer, Failure)] == [3, 5]


def test_gemms_together_are_what_each_is_alone(tables: Tables) -> None:
    chip = load_chip("b200")
    gemms = [
        GroupedGemm("down", np.arange(groups), 128 * groups, 256, 9, "bfloat16", accumulates=False)
        for groups in (3, 1, 7)
    ]
    times = gemm_times(tables, chip, GroupedGemms.of(gemms))
    for place, gemm in enumerate(gemms):
        alike(times.estimate(place), estimate_gemm(tables, chip, gemm))


def test_a_batch_that_overflows_somewhere_fails_where_it_does(monkeypatch: pytest.MonkeyPatch, tables: Tables) -> None:
    absurd = 12345

    def refusing(works: RankWorks) -> tuple[GroupedGemms, GroupedGemms]:
        if (works.hidden_size == absurd).any():
            raise OverflowError("too large")
        return gemms(works)

    gemms = RankWorks.gemms
    monkeypatch.setattr(RankWorks, "gemms", refusing)
    row = {"chip": "h100_sxm", "moe_intermediate_size": 512, "num_experts": 8, "num_experts_per_tok": 2}
    rows = [row | {"hidden_size": hidden, "num_tokens": 4} for hidden in (1024, absurd, 2048)]
    errors = [answer["error"] for answer in Predictor(tables).answer(rows)]
    assert errors == ["", "OverflowError: too large", ""]


def test_tiles_are_asked_of_the_compiler_once(tables: Tables) -> None:
    model = OurKernels(load_chip("h100_sxm"), tables)
    shape = MoEShape(hidden_size=1024, moe_intermediate_size=512, num_experts=8, num_experts_per_tok=2)
    question = OurLayer(shape=shape, workload=Workload(name="w", num_tokens=4))
    fresh = OurKernels(load_chip("h100_sxm"), Tables())
    assert [need[2:] for need in fresh.needs([question])] == [(["down", "gate_up"], "bfloat16")]
    model.answer([question])
    assert list(model.needs([question])) == []
