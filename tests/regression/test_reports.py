"""The text of every report of ``regress``, whole: a changed word is a changed line here."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from moe_codesign.regression.baseline import Baseline, compare_all
from moe_codesign.regression.facts import Fact, Facts, Place
from moe_codesign.regression.history import lines
from moe_codesign.regression.run import RegressionResult, VersionColumn
from moe_codesign.regression.suite import parse_suite
from moe_codesign.regression.timed import TimedResult
from moe_codesign.regression.verdict import Verdict
from moe_codesign.regression.versions import stale_tiles
from moe_codesign.reports.html.history import write_history
from moe_codesign.reports.markdown import matrix_markdown
from moe_codesign.reports.terminal.regression import print_history, print_matrix, regression_lines
from moe_codesign.storage.regressions import RegressionRun

TABLE = {"name": "k", "function": "a.py:f", "chips": ["h100_sxm"], "signature": {"x": "i32"}}
SUITE = parse_suite({"kernels": [TABLE]}, Path("suite.toml"))
SMALL, LARGE, THIRD, WIDE = (Place("k", "h100_sxm", tile) for tile in ("small", "large", "third", "wide"))


def ok(spill_bytes: float, registers: float, latency_us: float) -> Facts:
    numbers = {
        Fact("spill_bytes"): spill_bytes,
        Fact("registers"): registers,
        Fact("latency_us", "P 64", "uniform"): latency_us,
    }
    return Facts("ok", numbers)


OLD = Baseline(
    {"triton": "triton 3.6.0", "pallas": "jax 1"},
    {SMALL: ok(0, 100, 10.0), LARGE: ok(8, 100, 12.0), THIRD: ok(0, 100, 20.0)},
)
NEW = Baseline(
    {"triton": "triton 3.7.1", "pallas": "jax 1"},
    {SMALL: ok(16, 104, 10.0), LARGE: ok(0, 100, 8.0), WIDE: Facts("refused", reason="needs 300 KB")},
)
COLUMNS = [
    VersionColumn("triton 3.6.0", OLD, compare_all(SUITE, OLD, OLD), []),
    VersionColumn("triton 3.7.1", NEW, compare_all(SUITE, OLD, NEW), stale_tiles(OLD, NEW)),
]
RUNS = [
    RegressionRun(
        suite="suite",
        created=f"2026-01-0{day}",
        revision=f"abc{day}",
        versions={"triton": f"triton 3.{day}", "pallas": "jax 1"},
        regressions=day - 1,
        facts={SMALL: ok(0, 100, latency).to_json(), Place("step", "tpu_v6e"): {"status": "ok", "cycles": 50}},
    )
    for day, latency in ((1, 10.0), (2, 20.0), (3, 7.0))
]


def printed(write: Callable[[Console], None]) -> str:
    """What a report prints, without the blanks that end a line."""
    file = io.StringIO()
    write(Console(file=file, width=120, markup=False, color_system=None))
    return "".join(line.rstrip() + "\n" for line in file.getvalue().splitlines())


def test_a_run_beside_its_baseline() -> None:
    result = RegressionResult(SUITE, compare_all(SUITE, OLD, NEW), {WIDE: "needs 300 KB"}, 3, updated=False)
    assert list(regression_lines(result)) == [
        "note: k | h100_sxm | wide: needs 300 KB",
        "note: the baseline was made with triton 3.6.0, this run with triton 3.7.1",
        "REGRESSION: k | h100_sxm | small: spill_bytes 0 -> 16 (never more)",
        "better: k | h100_sxm | large: spill_bytes 8 -> 0 (never more)",
        "better: k | h100_sxm | large: latency_us at P 64, uniform routing 12 -> 8 (never more by over 5 %)",
        "moved: k | h100_sxm | small: registers 100 -> 104 (never more by over 10 %)",
        "new: k | h100_sxm | wide without a binary",
        "not run: k | h100_sxm | third",
        "suite: 3 kernels, 1 worse, 2 better, 1 moved within their rules, 1 new, 1 not run; what is not run, or new "
        "without a binary, fails until --update accepts it",
    ]
    assert result.failed
    updated = RegressionResult(SUITE, result.comparison, {}, 3, updated=True)
    assert list(regression_lines(updated))[-1] == (
        "suite: 3 kernels, 1 worse, 2 better, 1 moved within their rules, 1 new, 1 not run; baseline rewritten"
    )
    assert not updated.failed
    first = RegressionResult(SUITE, None, {}, 3, updated=True)
    assert list(regression_lines(first)) == ["suite: baseline suite.facts.json made, 3 kernels"]


def test_a_run_without_news_is_one_line() -> None:
    result = RegressionResult(SUITE, compare_all(SUITE, OLD, OLD), {}, 3, updated=False)
    assert list(regression_lines(result)) == [
        "suite: 3 kernels, 0 worse, 0 better, 0 moved within their rules, 0 new, 0 not run"
    ]


def test_every_regression_is_shown_and_twenty_of_all_else() -> None:
    places = [Place("k", "h100_sxm", f"{i:02}") for i in range(30)]
    old = Baseline({}, {place: ok(0, 100, 10) for place in places})
    worse = Baseline({}, {place: ok(1, 90, 10) for place in places})
    found = list(regression_lines(RegressionResult(SUITE, compare_all(SUITE, old, worse), {}, 30, updated=False)))
    assert sum(line.startswith("REGRESSION: ") for line in found) == 30
    assert found[30 + 20] == "better: 10 more; --json has all"
    gone = RegressionResult(SUITE, compare_all(SUITE, old, Baseline({}, {})), {}, 0, updated=False)
    assert list(regression_lines(gone))[20] == "not run: 10 more; --json has all"


def test_the_json_of_a_run() -> None:
    result = RegressionResult(SUITE, compare_all(SUITE, OLD, NEW), {WIDE: "needs 300 KB"}, 3, updated=False)
    found = result.to_json()
    assert found["reasons"] == [["k", "h100_sxm", "wide", "needs 300 KB"]]
    assert found["comparison"]["findings"][-1] == {
        "kernel": "k",
        "chip": "h100_sxm",
        "tile": "large",
        "fact": "latency_us at P 64, uniform routing",
        "old": 12.0,
        "new": 8.0,
        "change": "better",
        "rule": "never more by over 5 %",
    }
    assert found["comparison"]["gone"] == [("k", "h100_sxm", "third")]


def test_versions_on_the_terminal() -> None:
    assert (
        printed(lambda console: print_matrix(console, COLUMNS))
        == """\
compared with triton 3.6.0
┏━━━━━━━━━━━━━━┳━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━┳━━━━━━━┳━━━━━━━━┳━━━━━━━┳━━━━━━━━━━━━━┓
┃ version      ┃ compiled ┃ without a binary ┃ worse ┃ better ┃ moved ┃ stale tiles ┃
┡━━━━━━━━━━━━━━╇━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━╇━━━━━━━╇━━━━━━━━╇━━━━━━━╇━━━━━━━━━━━━━┩
│ triton 3.6.0 │        3 │                0 │     0 │      0 │     0 │           0 │
│ triton 3.7.1 │        2 │                1 │     1 │      2 │     1 │           1 │
└──────────────┴──────────┴──────────────────┴───────┴────────┴───────┴─────────────┘
triton 3.7.1: k | h100_sxm | small: spill_bytes 0 -> 16 (never more)
triton 3.7.1: k | h100_sxm | P 64, uniform routing: best tile small -> large, keeping the old costs 25.0%
"""
    )


def test_versions_as_markdown() -> None:
    assert (
        matrix_markdown("suite", COLUMNS)
        == """\
# suite: triton 3.6.0, triton 3.7.1

Every kernel of the suite compiled by each version; changes are from triton 3.6.0. worse, better: facts beyond \
their rule, or on the good side of it; the tables below have those that are worse.

| version | triton 3.6.0 (triton 3.6.0; jax 1) | triton 3.7.1 (triton 3.7.1; jax 1) |
|---|---|---|
| h100_sxm | 3 compiled | 2 compiled, 1 without a binary; 1 worse, 2 better, 1 moved |

triton 3.7.1: 1 without a binary: needs 300 KB

## From triton 3.6.0 to triton 3.7.1

| fact | worse | better | moved within its rule |
|---|---|---|---|
| latency_us | 0 | 1 | 0 |
| registers | 0 | 0 | 1 |
| spill_bytes | 1 | 1 | 0 |

| kernel | chip | tile | fact | was | is |
|---|---|---|---|---|---|
| k | h100_sxm | small | spill_bytes | 0 | 16 |

### Tiles no longer the best under triton 3.7.1

| kernel | chip | problem | was best | is best | keeping the old costs |
|---|---|---|---|---|---|
| k | h100_sxm | P 64, uniform routing | small | large | 25.0% |
"""
    )


def test_history_on_the_terminal() -> None:
    assert (
        printed(lambda console: print_history(console, "suite", RUNS, lines(RUNS)))
        == """\
suite: 3 runs, 2026-01-01 to 2026-01-03
┏━━━━━━━━┳━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━┓
┃ kernel ┃ chip     ┃ read from                   ┃ first to last ┃ last over first ┃
┡━━━━━━━━╇━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━┩
│ k      │ h100_sxm │ latency_us, uniform routing │ ▅█▃           │           0.700 │
│ step   │ tpu_v6e  │ cycles                      │ ▅▅▅           │           1.000 │
└────────┴──────────┴─────────────────────────────┴───────────────┴─────────────────┘
2026-01-01 abc1: 0 worse; triton 3.1, jax 1
2026-01-02 abc2: 1 worse; triton 3.2, jax 1
2026-01-03 abc3: 2 worse; triton 3.3, jax 1
"""
    )


def test_history_as_a_page_escapes_what_others_wrote(tmp_path: Path) -> None:
    page = tmp_path / "history.html"
    write_history(page, "<b>suite</b>", RUNS, lines(RUNS))
    text = page.read_text()
    body = text.split("</head>")[1]
    assert "<title>&lt;b&gt;suite&lt;/b&gt;: history</title>" in text
    assert "<h1>&lt;b&gt;suite&lt;/b&gt;</h1>" in body
    assert 'id="plot-0"' in body
    assert 'id="plot-1"' in body
    assert "https://" not in body, "nothing is fetched"


@pytest.mark.parametrize(
    ("result", "says"),
    [
        (
            TimedResult("layer", "cpu", 0.0, 1e-6, Verdict("slower", 1.25, 1.2, 1.3, 480)),
            "layer | cpu | beside HEAD: slower: 1.250 times the other's, 1.200 .. 1.300, 480 pairs",
        ),
        (
            TimedResult("layer", "cpu", 0.5, 1e-6, None, "wrong result: row_error 0 -> 0.5 (never more than 1e-06)"),
            "layer | cpu | beside HEAD: wrong result: row_error 0 -> 0.5 (never more than 1e-06)",
        ),
    ],
)
def test_a_timed_case(result: TimedResult, says: str) -> None:
    assert result.line("HEAD") == says
