"""How far a reference is from the best of its own budget, by hand on a data sheet."""

import math

import pytest

import moe_codesign as mc
from moe_codesign.answers.own_budget import own_budget_of
from moe_codesign.compiler.tile_table import Tables
from moe_codesign.errors import UserError
from moe_codesign.models import find_model
from moe_codesign.study.space import Space
from tests.conftest import make_space

QWEN = find_model("Qwen3-30B-A3B")
TWO = [{"name": "decode", "num_tokens": 64, "ep": 4}, {"name": "prefill", "num_tokens": 65_536, "ep": 4}]


def space(widths: list[int]) -> Space:
    return make_space(
        chips=["trainium2"], workloads=TWO, constraints={}, sampler="exact", tiles={},
        shape={"moe_intermediate_size": widths},
    )  # fmt: skip


def times(width: int) -> list[float]:
    rows = [
        {
            "chip": "trainium2", "hidden_size": 2048, "moe_intermediate_size": width, "num_experts": 128,
            "num_experts_per_tok": 8, "num_tokens": one["num_tokens"], "ep": 4,
        }
        for one in TWO
    ]  # fmt: skip
    return [float(row["latency_us"]) for row in mc.predict(rows)]


def test_a_narrower_shape_is_faster_by_what_the_reference_lacks() -> None:
    """Of three widths the least is fastest under both workloads: alone on the frontier."""
    (found,) = own_budget_of(space([704, 768, 1024]), Tables())
    assert (found.chip, found.model, found.feasible, found.frontier) == ("trainium2", QWEN.name, 3, 1)
    gains = [own / best for own, best in zip(times(768), times(704), strict=True)]
    assert {best.shape.moe_intermediate_size for best in found.best.values()} == {704}
    assert [gain.value for gain in found.gains.values()] == pytest.approx(gains, rel=1e-5)
    assert list(found.at_own_width.values()) == pytest.approx(gains, rel=1e-5)
    # To be beaten by no shape it is enough to be as fast under one of them.
    assert found.distance == pytest.approx(min(gains) - 1, rel=1e-3)


def test_a_reference_that_nothing_beats_is_on_the_frontier() -> None:
    (found,) = own_budget_of(space([768, 1024]), Tables())
    assert found.distance == 0
    assert all((gain.value, gain.low, gain.high) == (1, 1, 1) for gain in found.gains.values())
    (other,) = own_budget_of(space([896, 1024]), Tables())
    assert other.distance == 0
    assert all(math.isnan(over) for over in other.at_own_width.values())


def test_a_reference_without_a_time_is_an_error() -> None:
    odd = make_space(
        chips=["trainium2"], workloads=[{"name": "decode", "num_tokens": 64, "ep": 3}], constraints={}, tiles={},
        shape={"num_experts": [96, 129]},
    )  # fmt: skip
    with pytest.raises(UserError, match="Qwen3-30B-A3B has no time on trainium2"):
        own_budget_of(odd, Tables())
