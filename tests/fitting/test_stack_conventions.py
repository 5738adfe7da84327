"""How rows were timed is found in their times: in made-up ones whose conventions are known."""

import dataclasses

import numpy as np
import pytest

from moe_codesign.calibrations.stacks import StackCoefficients
from moe_codesign.chips import GpuChip, load_chip
from moe_codesign.cost.stacks import physics as fused_moe
from moe_codesign.cost.stacks import shipped
from moe_codesign.cost.stacks.columns import columns_of
from moe_codesign.cost.stacks.conventions import Conventions, timed_terms
from moe_codesign.domain.routing import parse_routing
from moe_codesign.domain.shape import MoEShape
from moe_codesign.domain.workload import Workload
from moe_codesign.fitting.measured import Measured
from moe_codesign.fitting.stack_conventions import fit_physics

CHIP = GpuChip.of(load_chip("h100_sxm"))
SHAPES = ((2048, 768, 128, 8), (4096, 1536, 128, 8), (4096, 14336, 8, 2), (5120, 2048, 64, 4), (6144, 2048, 256, 8))
NAMES = [f"{hidden}-{experts}-{top_k}" for hidden, _, experts, top_k in SHAPES]
TRUTH = dataclasses.replace(StackCoefficients(), matrix=1.5, launch_us=20.0)


def timed(conventions: Conventions) -> Measured:
    problems, keys = [], []
    for hidden, width, experts, top_k in SHAPES:
        shape = MoEShape(
            hidden_size=hidden, moe_intermediate_size=width, num_experts=experts, num_experts_per_tok=top_k
        )
        for tokens in (1, 8, 64, 256, 1024, 4096, 16384):
            for tp in (1, 2, 4):
                for ep in (1, 2, 4, 8):
                    for word in ("balanced", "uniform"):
                        load = Workload(name="w", num_tokens=tokens, tp=tp, ep=ep, routing=parse_routing(word))
                        problems.append((shape, load))
                        keys.append(f"{hidden}-{width}-{experts}-{top_k}")
    columns = columns_of(problems)
    _, t = timed_terms(TRUTH, conventions, columns, CHIP, "sglang", "bfloat16")
    noise = np.exp(0.03 * np.random.default_rng(0).standard_normal(len(columns)))
    routing = np.array(["balanced", "uniform"] * (len(problems) // 2))
    times = fused_moe.total_us(TRUTH, t) * noise
    named = np.zeros(len(times), dtype=bool)
    return Measured(CHIP, "sglang", "bfloat16", columns, times, np.array(keys), routing, named, "made up", "", {})


@pytest.mark.parametrize("shapes", [[], ["4096-8-2"], ["2048-128-8", "4096-8-2"], NAMES], ids=len)
@pytest.mark.parametrize("tuned", [frozenset(), frozenset({"128-768", "128-384", "8-3584"})], ids=["rule", "tuned"])
def test_conventions_are_found_and_no_others(shapes: list[str], tuned: frozenset[str]) -> None:
    truth = Conventions({name: name in shapes for name in NAMES}, tuned)
    x, found = fit_physics(timed(truth), tries=0)
    assert found.all_choices_here == truth.all_choices_here
    # A file that is not slower than the rule leaves no trace; none is found that is not there.
    assert found.tuned <= tuned
    if tuned:
        assert "128-768" in found.tuned
    assert x.launch_us == pytest.approx(20.0, rel=0.15)


def test_what_is_not_known_follows_what_is_alike() -> None:
    def column(hidden: int, experts: int, top_k: int, ep: int = 2) -> bool:
        shape = MoEShape(hidden_size=hidden, moe_intermediate_size=1024, num_experts=experts, num_experts_per_tok=top_k)
        load = Workload(name="w", num_tokens=64, ep=ep, routing=parse_routing("balanced"))
        return bool(known.runs_all_choices(columns_of([(shape, load)]))[0])

    known = Conventions({"4096-8-2": True, "2816-128-8": True, "2048-128-8": False, "6144-128-4": False})
    assert column(6144, 8, 2)
    assert column(2816, 128, 8)
    assert not column(2048, 128, 8)
    assert not column(7168, 128, 8)  # those alike do not agree
    assert not column(4096, 64, 6)
    assert not column(4096, 8, 2, ep=1)
    known = Conventions({"4096-8-2": True, "2816-128-8": True, "2048-128-8": False})
    assert column(4096, 64, 6)


def test_a_prediction_says_what_was_timed() -> None:
    """SGLang 0.5.14 was timed with a tuned file for 128 experts of 768 on the H100, and with all choices for 8 of 2."""
    found = shipped.find(CHIP, "sglang", "bfloat16").value
    qwen = MoEShape(hidden_size=2048, moe_intermediate_size=768, num_experts=128, num_experts_per_tok=8)
    mixtral = MoEShape(hidden_size=4096, moe_intermediate_size=14336, num_experts=8, num_experts_per_tok=2)

    def work(ep: int = 1) -> Workload:
        return Workload(name="w", num_tokens=4096, ep=ep, routing=parse_routing("balanced"))

    columns = columns_of([(qwen, work()), (mixtral, work(2)), (mixtral, work())])
    said = found.predict(CHIP, columns)
    assert "tuned configuration" in said.note[0]
    assert said.tiles.of_row(0).as_dict()["BLOCK_SIZE_N"] == 64  # the rule's
    assert "every expert choice" in said.note[1]
    assert said.note[2] == ""
    # Half of the experts with all of their tokens' choices take about as long as all of them.
    assert said.latency_us[1] == pytest.approx(said.latency_us[2], rel=0.15)
    elsewhere = found.predict(GpuChip.of(load_chip("h200_sxm")), columns)
    assert "tuned configuration" not in elsewhere.note[0]
