"""Rules and comparisons."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_codesign.errors import UserError
from moe_codesign.regression.baseline import Baseline, compare_all
from moe_codesign.regression.facts import Fact, Facts, Place
from moe_codesign.regression.rules import DEFAULT_RULES, Rule, compare
from moe_codesign.regression.suite import JaxFunction, OurKernel, Suite, TritonFunction, parse_suite

PLACE = Place("kernel", "chip", "tile")


def facts(**data: float | str) -> Facts:
    return Facts.from_json({"status": "ok", **data})


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


def test_every_change_is_reported_once() -> None:
    rules = {**DEFAULT_RULES, "registers": None}
    old = facts(spill_bytes=0, registers=100, **{"latency_us at a problem": 10.0}, cycles=5)
    new = facts(spill_bytes=16, registers=200, **{"latency_us at a problem": 12.0}, bundles=7)
    found = {str(f.what): f for f in compare(PLACE, old, new, rules)}
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
    refused = Facts("refused", reason="too large")
    found = list(compare(PLACE, facts(cycles=5), refused, DEFAULT_RULES))
    assert [f.line() for f in found] == ["kernel | chip | tile: status ok -> refused (never other than ok)"]
    assert [f.change for f in compare(PLACE, refused, facts(), DEFAULT_RULES)] == ["better"]


def test_no_number_is_a_regression() -> None:
    (found,) = compare(PLACE, facts(cycles=1.0), facts(cycles=math.nan), DEFAULT_RULES)
    assert found.change == "regression"
    assert "1 -> nan" in found.line()


def test_a_text_that_changes_is_reported_and_fails_nothing() -> None:
    old, new = Facts("refused", reason="a"), Facts("refused", reason="b")
    assert [f.line() for f in compare(PLACE, old, new, DEFAULT_RULES)] == ["kernel | chip | tile: reason a -> b"]
    old, new = Facts("ok"), Facts("ok", tile="64x128x64")
    (found,) = compare(PLACE, old, new, DEFAULT_RULES)
    assert (found.line(), found.change) == ("kernel | chip | tile: tile none -> 64x128x64", "moved")


def test_a_fact_without_a_rule_fails_nothing() -> None:
    (found,) = compare(PLACE, facts(instructions=1), facts(instructions=1000), DEFAULT_RULES)
    assert (found.change, found.rule) == ("moved", "")


@given(
    name=st.text(st.characters(exclude_characters=" "), min_size=1).filter(
        lambda t: t not in ("status", "reason", "tile")
    ),
    problem=st.none() | st.text(),
)
def test_a_fact_is_read_back_as_it_was_written(name: str, problem: str | None) -> None:
    """Also of a problem whose own name has the word ``at`` in it."""
    fact = Fact(name, problem)
    assert Fact.parse(str(fact)) == fact
    every = Facts("ok", {fact: 1.5}, reason="why", tile="t")
    assert Facts.from_json(every.to_json()) == every


def suite(**rules: object) -> Suite:
    table = {"name": "k", "function": "a.py:f", "chips": ["h100_sxm"], "signature": {"x": "i32"}}
    return parse_suite({"kernels": [table], "rules": rules}, Path("suite.toml"))


def test_a_suite_changes_a_rule_and_keeps_its_direction() -> None:
    found = suite(resident_blocks={"by": 1}, matrix_instructions={"percent": 10}, registers=False)
    rules = found.rules_by_kernel()["k"]
    assert rules["resident_blocks"] == Rule(worse="less", by=1)
    assert rules["matrix_instructions"] == Rule(worse="less", percent=10)
    assert rules["registers"] is None
    assert rules["spill_bytes"] == Rule()


def test_a_rule_of_no_fact_is_reported() -> None:
    with pytest.raises(UserError, match="did you mean registers"):
        suite(registerz={"percent": 1})


def test_what_is_gone_or_new_without_a_binary_fails() -> None:
    ok, bad = Facts("ok"), Facts("failed")
    a, b, c = (Place("k", "h100_sxm", tile) for tile in "abc")
    old = Baseline({}, {a: ok, b: ok})
    assert not compare_all(suite(), old, old).failed
    assert compare_all(suite(), old, Baseline({}, {a: ok})).failed
    assert not compare_all(suite(), old, Baseline({}, {**old.facts, c: ok})).failed
    assert compare_all(suite(), old, Baseline({}, {**old.facts, c: bad})).failed


OURS = {"kernel": "triton.grouped_gemm", "chips": ["h100_sxm"]}
TRITON = {"function": "a.py:f", "chips": ["h100_sxm"], "signature": {"x": "i32"}}
PROBLEM = {"model": "x", "num_tokens": 1}
BARE = {"function": "a.py:g", "chips": ["tpu_v6e"]}
JAX = {"function": "a.py:g", "chips": ["tpu_v6e"], "arguments": "f32[8]"}


def test_the_keys_of_a_table_say_what_kind_of_kernel_it_is() -> None:
    found = parse_suite({"kernels": [OURS, TRITON, JAX]}, Path("suite.toml"))
    assert [type(one) for one in found.kernels] == [OurKernel, TritonFunction, JaxFunction]
    names = ["triton.grouped_gemm gate_up bfloat16", "triton.grouped_gemm down bfloat16", "f", "g"]
    assert [name for one in found.kernels for name in one.names] == names
    assert list(found.rules_by_kernel()) == names


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({**OURS, "signature": {"x": "i32"}}, "kernels.0: signature, constants and arguments describe a function"),
        ({**TRITON, "problems": []}, "kernels.0: ops, dtypes, rows and problems are for kernels of ours alone"),
        ({**JAX, "rows": [1]}, "kernels.0: ops, dtypes, rows and problems are for kernels of ours alone"),
        ({**OURS, "function": "a.py:f"}, "kernels.0: give either kernel (one of ours) or function (any)"),
        ({"chips": ["h100_sxm"]}, "kernels.0: give either kernel (one of ours) or function (any)"),
        ({**TRITON, "arguments": "f32[8]"}, "signature (a Triton kernel) or arguments (a JAX function)"),
        ({"function": "a.py:f", "chips": []}, "signature (a Triton kernel) or arguments (a JAX function)"),
        ({**TRITON, "signature": {}}, "kernels.0.signature: Dictionary should have at least 1 item"),
        ({**BARE, "argumente": "f32[8]"}, "kernels.0.argumente is unknown; did you mean arguments?"),
        ({"kernal": "triton.grouped_gemm"}, "kernels.0.kernal is unknown; did you mean kernel?"),
        ({**OURS, "tile": []}, "kernels.0.tile is unknown; did you mean tiles?"),
        ({**TRITON, "chip": []}, "kernels.0.chip is unknown; did you mean chips?"),
        ({"kernel": "triton.grouped_gemm"}, "kernels.0.chips is missing; add it"),
        ({**OURS, "ops": ["dawn"]}, "kernels.0.ops.0 = 'dawn': Input should be 'gate_up', 'up' or 'down'"),
        ({**OURS, "problems": [{"model": "x", "tokens": 1}]}, "kernels.0.problems.0.num_tokens is missing"),
        (
            {**OURS, "problems": [PROBLEM, {**PROBLEM, "routing": "uniform"}]},
            "problems has 'x 1 tokens, uniform routing' twice",
        ),
        ({**OURS, "rules": {"registerz": False}}, "kernels.0: rules has 'registerz', which is no fact; did you mean"),
    ],
)
def test_a_wrong_table_is_reported_in_one_line(table: dict[str, object], says: str) -> None:
    with pytest.raises(UserError) as error:
        parse_suite({"kernels": [table]}, Path("suite.toml"))
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_two_kernels_of_one_name_are_reported() -> None:
    named = {**OURS, "name": "x", "ops": ["down"]}
    with pytest.raises(UserError, match="two kernels are called 'x down bfloat16'"):
        parse_suite({"kernels": [named, named]}, Path("suite.toml"))
