"""Rules and comparisons."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_codesign.errors import UserError
from moe_codesign.regression.baseline import Baseline, compare_all
from moe_codesign.regression.rules import DEFAULT_RULES, Rule, compare, rule_of
from moe_codesign.regression.suite import Suite, parse_suite

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
        "cycles": "regression",
        "bundles": "moved",
    }
    assert found["spill_bytes"].line() == "kernel | chip | tile: spill_bytes 0 -> 16 (never more)"
    assert "never more by over 5 %" in found["latency_us at a problem"].line()


def test_a_lost_binary_is_one_line() -> None:
    found = list(compare(PLACE, {"status": "ok", "cycles": 5}, {"status": "refused"}, DEFAULT_RULES))
    assert [f.line() for f in found] == ["kernel | chip | tile: status ok -> refused (never other than ok)"]
    assert [f.change for f in compare(PLACE, {"status": "refused"}, {"status": "ok"}, DEFAULT_RULES)] == ["better"]


def test_no_number_is_a_regression() -> None:
    (found,) = compare(PLACE, {"cycles": 1.0}, {"cycles": math.nan}, DEFAULT_RULES)
    assert found.change == "regression"
    assert "1 -> nan" in found.line()


def test_problems_share_a_rule() -> None:
    assert rule_of("latency_us at Mixtral-8x7B 64 tokens", DEFAULT_RULES) == DEFAULT_RULES["latency_us"]
    assert rule_of("instructions", DEFAULT_RULES) is None


def suite(**rules: object) -> Suite:
    table = {"name": "k", "function": "a.py:f", "chips": ["h100_sxm"], "signature": {"x": "i32"}}
    return parse_suite({"kernels": [table], "rules": rules}, Path("suite.toml"))


def test_a_suite_changes_a_rule_and_keeps_its_direction() -> None:
    found = suite(resident_blocks={"by": 1}, matrix_instructions={"percent": 10}, registers=False)
    rules = found.rules_for(found.kernels[0])
    assert rules["resident_blocks"] == Rule(worse="less", by=1)
    assert rules["matrix_instructions"] == Rule(worse="less", percent=10)
    assert rules["registers"] is None
    assert rules["spill_bytes"] == Rule()


def test_a_rule_of_no_fact_is_told() -> None:
    with pytest.raises(UserError, match="did you mean registers"):
        suite(registerz={"percent": 1})


def test_what_is_gone_or_new_without_a_binary_fails() -> None:
    ok, bad = {"status": "ok"}, {"status": "failed"}
    old = Baseline({}, {("k", "h100_sxm", "a"): ok, ("k", "h100_sxm", "b"): ok})
    assert not compare_all(suite(), old, old).failed
    assert compare_all(suite(), old, Baseline({}, {("k", "h100_sxm", "a"): ok})).failed
    assert not compare_all(suite(), old, Baseline({}, {**old.facts, ("k", "h100_sxm", "c"): ok})).failed
    assert compare_all(suite(), old, Baseline({}, {**old.facts, ("k", "h100_sxm", "c"): bad})).failed
