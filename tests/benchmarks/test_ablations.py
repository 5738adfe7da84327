"""The accuracy benchmark's ablations leave out what they name."""

import dataclasses

import pytest
from ablations import TERMS, coefficients_without

from moe_codesign.calibrations.stacks import StackCoefficients
from moe_codesign.chips import GpuChip, load_chip
from moe_codesign.cost.stacks import physics
from moe_codesign.cost.stacks.columns import columns_of
from moe_codesign.cost.stacks.tiles import rule_tiles
from moe_codesign.domain.routing import Balanced
from moe_codesign.domain.shape import MoEShape
from moe_codesign.domain.workload import Workload

SHAPE = MoEShape(hidden_size=4096, moe_intermediate_size=1858, num_experts=64, num_experts_per_tok=8)
SMALL = dataclasses.replace(SHAPE, moe_intermediate_size=64, hidden_size=1024)


@pytest.mark.parametrize("name", TERMS)
def test_a_term_left_out_costs_nothing(name: str) -> None:
    # Each term weighs something on one: many rows, rows of other ranks or whose bytes are not a multiple of 16, a
    # single token whose experts the L2 keeps.
    problems = [(SHAPE, 16384, 4), (SHAPE, 700, 4), (SHAPE, 1, 1), (SMALL, 1, 1)]
    columns = columns_of(
        [(shape, Workload(name="w", num_tokens=tokens, ep=ep, routing=Balanced())) for shape, tokens, ep in problems]
    )
    chip, dtype = GpuChip.of(load_chip("h100_sxm")), "bfloat16"
    x = dataclasses.replace(StackCoefficients(), latency_us=3.0)
    t = physics.terms(columns, chip, dtype, rule_tiles(columns, "sglang", dtype))
    whole = physics.total_us(x, t)
    less = physics.total_us(coefficients_without(name, x), TERMS[name](t, columns, chip, dtype))
    if name in ("residency", "near", "cached"):  # one block a core hides nothing of its loads; nothing is near
        assert (whole <= less * (1 + 1e-12)).all()
    else:
        assert (less <= whole * (1 + 1e-12)).all()
    assert (less != whole).any()
