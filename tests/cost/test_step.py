"""Forward passes and serving: sums, bounds, and what more users and more chips may do."""

import dataclasses

import numpy as np
import pytest

from moe_codesign.answers.serving_frontier import serving_frontier
from moe_codesign.arrays import F64
from moe_codesign.chips import GpuChip, load_chip
from moe_codesign.cost.operations.fitted import Fitted, find_operations
from moe_codesign.cost.step.forward import Passes
from moe_codesign.cost.step.memory import held
from moe_codesign.cost.step.modes import Modes
from moe_codesign.cost.step.rules import StackRules
from moe_codesign.cost.step.serving import Load, Served, serve
from moe_codesign.cost.step.timed import time_passes
from moe_codesign.domain.model_shape import ModelShape
from moe_codesign.errors import UserError
from moe_codesign.models import model_shape

RULES = StackRules()
MODELS = ("DeepSeek-V3", "gpt-oss-120b", "Qwen3.5-397B", "Qwen3-30B-A3B", "Mixtral-8x7B", "Llama-3.1-70B")


def gpu(name: str) -> GpuChip:
    return GpuChip.of(load_chip(name))


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    return find_operations(gpu("h200_sxm"), "trtllm")


def split(rows: int, **sizes: float) -> dict[str, F64]:
    return {name: np.full(rows, float(sizes.get(name, 1))) for name in ("tp", "dp", "moe_tp", "ep")}


def served(model: ModelShape, fitted: Fitted, concurrency: F64, **sizes: float) -> Served:
    rows = len(concurrency)
    load = Load(concurrency, np.full(rows, 1024.0), np.full(rows, 1024.0), **split(rows, **sizes))
    return serve(model, load, Modes.of(model.types, gpu("h200_sxm")), fitted, RULES)


@pytest.mark.parametrize("name", MODELS)
def test_a_pass_is_the_sum_of_its_parts_and_reads_its_weights(name: str, fitted: Fitted) -> None:
    """A pass of many tokens reads every weight of each chip once at least, and computes every product."""
    model, chip = model_shape(name), gpu("h200_sxm")
    eight = split(1, tp=8, moe_tp=1 if model.moe else 8, ep=8 if model.moe else 1)
    passes = Passes("prefill", np.array([8.0]), np.array([1024.0]), np.array([0.0]), **eight)
    times = time_passes(model, passes, Modes.of(model.types, chip), fitted, RULES)
    assert times.latency_us[0] == pytest.approx(sum(part[0] for part in times.parts_us.values()))
    weights = sum(size for part, size in model.weight_bytes().items() if part not in ("embedding", "router"))
    assert times.latency_us[0] > 1e6 * weights / 8 / chip.memory.hbm_bytes_per_s
    active = model.active_parameters()
    products = 2 * 8192 * (active.total - active.head) / 8
    fastest = max(chip.peak_flops_per_s.values())
    assert times.latency_us[0] > 1e6 * products / fastest


@pytest.mark.parametrize("name", MODELS)
def test_more_users_never_lower_the_whole_and_never_raise_a_users_speed(name: str, fitted: Fitted) -> None:
    users: F64 = np.array([float(2**power) for power in range(11)])
    many = served(model_shape(name), fitted, users, tp=8, moe_tp=8).tpot_ms
    # A kernel of a larger batch may be a little faster than that of a smaller one: a better tile fits it.
    assert (many[1:] > 0.93 * many[:-1]).all()
    assert ((users / many)[1:] > 0.97 * (users / many)[:-1]).all()


def test_one_rank_of_experts_is_no_expert_parallelism(fitted: Fitted) -> None:
    model = model_shape("Qwen3-30B-A3B")
    users = np.array([1.0, 16.0, 256.0])
    assert served(model, fitted, users, ep=1).tpot_ms == pytest.approx(served(model, fitted, users).tpot_ms)
    assert not any(part in served(model, fitted, users).decode.parts_us for part in ("dispatch", "all-reduce"))


def test_shared_experts_that_are_hidden_take_no_time(fitted: Fitted) -> None:
    model, chip = model_shape("DeepSeek-V3"), gpu("h200_sxm")
    passes = Passes("decode", np.array([8.0]), np.ones(1), np.array([1000.0]), **split(1, tp=8, ep=8))
    by_share = [
        time_passes(
            model, passes, Modes.of(model.types, chip), fitted, dataclasses.replace(RULES, shared_hidden=share)
        ).parts_us["shared experts"][0]
        for share in (0.0, 0.5, 1.0)
    ]
    assert by_share[1] == pytest.approx(by_share[0] / 2)
    assert by_share[2] == 0


def test_what_the_chips_hold_is_the_model() -> None:
    model, chip = model_shape("DeepSeek-V3"), gpu("h200_sxm")
    one = held(model, chip, split(1), np.ones(1), 2048)
    eight = held(model, chip, split(1, tp=8, ep=8), np.ones(1), 2048)
    assert one.weights[0] == pytest.approx(sum(model.weight_bytes().values()))
    assert 8 * eight.weights[0] >= one.weights[0]
    # Latent vectors are on every rank of tp.
    assert eight.cache[0] == pytest.approx(one.cache[0]) == model.kv_bytes(2048)
    qwen = model_shape("Qwen3-30B-A3B")
    whole, half = (held(qwen, chip, split(1, tp=tp), np.ones(1), 2048).cache[0] for tp in (1, 2))
    assert half == pytest.approx(whole / 2)
    assert held(qwen, chip, split(1, tp=8), np.ones(1), 2048).cache[0] == pytest.approx(whole / 4)  # 4 heads of keys


def test_deepseek_v3_fits_eight_h200_and_not_eight_h100() -> None:
    model = model_shape("DeepSeek-V3")
    with pytest.raises(UserError, match=r"does not fit on 8 h100_sxm: weights 8\d\.\d \+ cache .* GB of 72\.0 usable"):
        serving_frontier(
            model,
            gpu("h100_sxm"),
            find_operations(gpu("h100_sxm"), "trtllm"),
            RULES,
            stack="trtllm",
            isl=1024,
            osl=1024,
            most_chips=8,
        )


def test_the_frontier_is_of_deployments_that_no_other_beats(fitted: Fitted) -> None:
    found = serving_frontier(
        model_shape("DeepSeek-V3"), gpu("h200_sxm"), fitted, RULES, stack="trtllm", isl=1024, osl=1024, most_chips=8
    )
    users = [point.tokens_per_s_per_user for point in found.points]
    chips = [point.tokens_per_s_per_chip for point in found.points]
    assert users == sorted(users, reverse=True)
    assert chips == sorted(chips)
    price, power = gpu("h200_sxm").price, gpu("h200_sxm").power.all_in_kw
    assert price is not None
    assert power is not None
    for point in found.points:
        assert point.chips == 8
        assert point.low_tpot_ms < point.tpot_ms < point.high_tpot_ms
        assert point.tokens_per_s_per_chip == pytest.approx(point.tokens_per_s_per_user * point.requests / 8)
        assert point.usd_per_mtok == pytest.approx(price.usd_per_hour / point.tokens_per_s_per_chip / 3600e-6)
        assert point.joules_per_token == pytest.approx(1e3 * power / point.tokens_per_s_per_chip)
        assert point.held_gb <= 0.9 * 141
