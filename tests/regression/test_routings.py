"""The routing of a problem is part of what its modelled time is called, and of what is compared with what."""

from pathlib import Path

import pytest

from moe_codesign.errors import UserError
from moe_codesign.regression.baseline import Baseline, check_routings, compare_all
from moe_codesign.regression.facts import Fact, Facts, Place
from moe_codesign.regression.history import lines
from moe_codesign.regression.run import RegressionResult, regress_suite
from moe_codesign.regression.suite import Suite, load_suite, parse_suite
from moe_codesign.reports.html.history import write_history
from moe_codesign.reports.terminal.regression import regression_lines
from moe_codesign.storage.database import Database
from moe_codesign.storage.regressions import RegressionRun, Regressions

PLACE = Place("triton.grouped_gemm down bfloat16", "h100_sxm", "default for 128 rows")
LAYER = "Qwen3-30B-A3B 64 tokens"
FILE = Path("suite.facts.json")


def suite(*routings: str, path: Path = Path("suite.toml")) -> Suite:
    problems = [{"model": "Qwen3-30B-A3B", "num_tokens": 64, "routing": routing} for routing in routings]
    kernel = {"kernel": "triton.grouped_gemm", "chips": ["h100_sxm"], "ops": ["down"], "problems": problems}
    return parse_suite({"kernels": [kernel]}, path)


def baseline(*routings: str | None) -> Baseline:
    numbers = {Fact("latency_us", LAYER, routing): 10.0 for routing in routings}
    return Baseline({"triton": "triton 1"}, {PLACE: Facts("ok", {Fact("registers"): 100, **numbers})})


@pytest.mark.parametrize(
    ("fact", "text"),
    [
        (Fact("latency_us", LAYER, "balanced"), f"latency_us at {LAYER}, balanced routing"),
        (Fact("latency_us", "a, b/config.json 1 tokens tp2", "zipf:1.5"), None),
        (Fact("latency_us", LAYER, "histogram:[3, 1, 0]"), None),
        (Fact("latency_us", LAYER, "power_law:1.2/8/4"), None),
        (Fact("latency_us", LAYER), f"latency_us at {LAYER}"),
        (Fact("registers"), "registers"),
    ],
)
def test_what_a_fact_is_called_reads_back(fact: Fact, text: str | None) -> None:
    assert Fact.parse(str(fact)) == fact
    assert text in (None, str(fact))


def test_one_layer_under_two_routings_is_two_problems() -> None:
    assert suite("balanced", "uniform").problems == [f"{LAYER}, balanced routing", f"{LAYER}, uniform routing"]


@pytest.mark.parametrize(
    ("old", "says"),
    [
        (
            baseline(None),
            f"the suite times {LAYER}, uniform routing, and baseline suite.facts.json does not name its routing; "
            "make the baseline again with --update",
        ),
        (
            baseline("balanced"),
            f"the suite times {LAYER}, uniform routing, and baseline suite.facts.json has it by balanced routing; "
            'write routing = "balanced" in the suite, or make the baseline again with --update',
        ),
    ],
)
def test_a_baseline_of_another_routing_is_one_line(old: Baseline, says: str) -> None:
    with pytest.raises(UserError) as error:
        check_routings(suite("uniform"), old, FILE)
    assert str(error.value) == says


def test_a_baseline_of_the_same_routing_is_compared() -> None:
    check_routings(suite("uniform"), baseline("uniform"), FILE)
    check_routings(suite("uniform", "balanced"), baseline("uniform", "balanced"), FILE)
    check_routings(suite(), baseline(None), FILE)


def test_it_is_refused_before_anything_is_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = suite("uniform", path=tmp_path / "suite.toml")
    asked.baseline.write_text(
        '{"made_with": {"triton": "triton 1"}, "kernels": {"triton.grouped_gemm down bfloat16": '
        '{"h100_sxm | default for 128 rows": {"status": "ok", "latency_us at Qwen3-30B-A3B 64 tokens": 10.0}}}}'
    )
    monkeypatch.setattr("moe_codesign.regression.run.observe", lambda *_, **__: pytest.fail("it compiles"))
    with (
        Database(f"sqlite:///{tmp_path}/runs.db") as database,
        pytest.raises(UserError, match="does not name its routing"),
    ):
        regress_suite(asked, Regressions(database))


def test_an_update_says_that_the_routing_is_another_and_not_that_a_time_is_gone() -> None:
    old, new = baseline("balanced"), baseline("uniform")
    assert {finding.change for finding in compare_all(suite("uniform"), old, new).findings} == {"moved"}


def test_a_time_that_is_gone_without_another_routing_is_a_regression() -> None:
    found = compare_all(suite("uniform", "balanced"), baseline("uniform", "balanced"), baseline("uniform"))
    assert [finding.change for finding in found.findings] == ["regression"]


def test_the_terminal_and_the_json_name_the_routing_where_nothing_moved() -> None:
    comparison = compare_all(suite("uniform"), baseline("uniform"), baseline("uniform"))
    result = RegressionResult(suite("uniform"), comparison, {}, 1, updated=False)
    assert next(iter(regression_lines(result))) == f"modelled: {LAYER}, uniform routing"
    assert result.to_json()["problems"] == [f"{LAYER}, uniform routing"]


def test_the_history_names_the_routings(tmp_path: Path) -> None:
    runs = [
        RegressionRun("suite", f"2026-01-0{day}", "abc", {}, 0, {PLACE: baseline(routing).facts[PLACE].to_json()})
        for day, routing in ((1, None), (2, "uniform"))
    ]
    (line,) = lines(runs)
    assert line.routings == (None, "uniform")
    assert line.read_from == "latency_us, unnamed routing, uniform routing"
    assert line.ratios == (1.0, 1.0), "times of two routings are not compared"
    write_history(tmp_path / "page.html", "suite", runs, [line])
    assert "uniform routing" in (tmp_path / "page.html").read_text().split("</head>")[1]


def test_the_shipped_baseline_names_the_routings_of_its_suite() -> None:
    from moe_codesign.regression.baseline import read_baseline

    shipped = load_suite("benchmarks/baselines/default.toml")
    old = read_baseline(shipped.baseline)
    check_routings(shipped, old, shipped.baseline)
    for place, facts in old.facts.items():
        times = {fact for fact in facts.numbers if fact.problem is not None}
        assert times <= set(shipped.times.get(place.kernel, ())), place
