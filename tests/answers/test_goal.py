"""What shapes are compared by: a metric under a workload, or a mix of workloads by their shares of the tokens."""

import pytest

from moe_codesign.answers.goal import Goal
from moe_codesign.domain.metrics import METRICS, Known
from moe_codesign.domain.workload import Workload
from moe_codesign.errors import UserError
from tests.conftest import make_space

TWO = [{"name": "decode", "num_tokens": 64, "ep": 4}, {"name": "prefill", "num_tokens": 4096, "ep": 4}]
SPACE = make_space(
    workloads=TWO, chips=["tpu_v6e"], objectives=["quality", "prefill.latency_us", "decode.latency_us"], tiles={}
)
CHIP = SPACE.chips[0]
KNOWN = [
    Known(us, 48, 1.0, Workload(name=name, num_tokens=tokens, ep=4))
    for name, tokens, us in (("decode", 64, 100.0), ("prefill", 4096, 2000.0))
]


def goal(objective: str | None = None, shares: dict[str, float] | None = None) -> Goal:
    return Goal.of(SPACE, SPACE.chips, objective, shares)


def test_the_first_objective_of_a_workload_is_the_default() -> None:
    assert str(goal()) == "prefill.latency_us"
    assert goal().cost([KNOWN[1]], CHIP) == 2000.0


def test_a_mix_is_a_mean_over_tokens() -> None:
    mix = goal(shares={"decode": 3, "prefill": 1})
    assert mix.cost(KNOWN, CHIP) == pytest.approx(0.75 * 100 / 64 + 0.25 * 2000 / 4096)
    assert mix.unit == "us/token"
    assert str(mix) == "latency_us a token (75% of tokens in decode, 25% of tokens in prefill)"
    usd = goal("usd_per_mtok", {"decode": 3, "prefill": 1})
    each = [METRICS["usd_per_mtok"].of(one, CHIP) for one in KNOWN]
    assert usd.cost(KNOWN, CHIP) == pytest.approx(0.75 * each[0] + 0.25 * each[1])


@pytest.mark.parametrize("name", [name for name, metric in METRICS.items() if not metric.of_shape])
def test_a_cost_is_in_proportion_to_the_time_and_less_is_better(name: str) -> None:
    chip = make_space(chips=["h100_sxm"]).chips[0]
    one = Goal(METRICS[name], {"decode": 1.0})
    slower = KNOWN[0]._replace(latency_us=300.0)
    assert one.cost([slower], chip) == pytest.approx(3 * one.cost([KNOWN[0]], chip))


@pytest.mark.parametrize(
    ("objective", "shares", "says"),
    [
        ("quality", None, "use one of latency_us"),
        ("latency_us", None, "WORKLOAD.latency_us"),
        ("decode.latency", None, "did you mean latency_us"),
        ("dekode.latency_us", None, "use one of decode, prefill"),
        ("latency", {"decode": 1.0}, "use one of latency_us"),
        (None, {"decode": -1.0}, "decode=-1"),
        (None, {"train": 1.0}, "tpu_v6e has no workload 'train'"),
        ("decode.joules_per_token", None, "no power"),
    ],
)
def test_what_cannot_be_a_goal_is_refused(objective: str | None, shares: dict[str, float] | None, says: str) -> None:
    with pytest.raises(UserError, match=says):
        goal(objective, shares)
