"""Rules and comparisons."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_codesign.regression.rules import DEFAULT_RULES, Rule, compare, rule_of

PLACE = ("kernel", "chip", "tile")


@pytest.mark.parametrize(
    ("rule", "old", "new", "change"),
    [
        (Rule(), 0, 0, None),
        (Rule(), 0, 4, "regression"),
        (Rule(), 8, 4, "better"),
        (Rule(percent=10), 100, 110, "moved"),
        (Rule(percent=10), 100, 111, "regression"),
        (Rule(percent=25, by=2), 2, 4, "moved"),
        (Rule(percent=25, by=2), 2, 5, "regression"),
        (Rule(worse="less"), 2, 1, "regression"),
        (Rule(worse="less"), 1, 2, "better"),
        (Rule(worse="less", percent=50), 8, 4, "moved"),
        (Rule(worse="less", percent=50), 8, 3, "regression"),
        (Rule(worse="change"), 1, 2, "regression"),
        (Rule(worse="change"), 2, 1, "regression"),
    ],
)
def test_a_rule(rule: Rule, old: float, new: float, change: str | None) -> None:
    assert rule.judge(old, new) == change


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 100), st.floats(0, 100))
def test_a_rule_is_one_sided_and_monotone(old: float, new: float, percent: float, by: float) -> None:
    rule = Rule(percent=percent, by=by)
    if rule.judge(old, new) == "regression":
        assert new > old
        assert rule.judge(old, new * 2 + 1) == "regression"
    assert Rule(worse="less", percent=percent, by=by).judge(old, old) is None


def test_every_change_is_told_once() -> None:
    rules = {**DEFAULT_RULES, "registers": None}
    old = {"status": "ok", "spill_bytes": 0, "registers": 100, "latency_us at a problem": 10.0, "cycles": 5}
    new = {"status": "ok", "spill_bytes": 16, "registers": 200, "latency_us at a problem": 12.0, "bundles": 7}
    found = {f.fact: f for f in compare(PLACE, old, new, rules)}
    assert {name: f.change for name, f in found.items()} == {
        "spill_bytes": "regression",
        "registers": "moved",
        "latency_us at a problem": "regression",
        "cycles": "moved",
        "bundles": "moved",
    }
    assert found["spill_bytes"].line() == "kernel | chip | tile: spill_bytes 0 -> 16 (never more)"
    assert "never more by over 5 %" in found["latency_us at a problem"].line()


def test_a_lost_binary_is_one_line() -> None:
    found = list(compare(PLACE, {"status": "ok", "cycles": 5}, {"status": "refused"}, DEFAULT_RULES))
    assert [f.line() for f in found] == ["kernel | chip | tile: status ok -> refused (never other than ok)"]
    assert [f.change for f in compare(PLACE, {"status": "refused"}, {"status": "ok"}, DEFAULT_RULES)] == ["better"]


def test_no_number_is_a_regression() -> None:
    assert [f.change for f in compare(PLACE, {"cycles": 1.0}, {"cycles": math.nan}, DEFAULT_RULES)] == ["regression"]


def test_problems_share_a_rule() -> None:
    assert rule_of("latency_us at Mixtral-8x7B 64 tokens", DEFAULT_RULES) == DEFAULT_RULES["latency_us"]
    assert rule_of("instructions", DEFAULT_RULES) is None
