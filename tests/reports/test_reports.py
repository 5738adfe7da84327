import dataclasses
import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console

import moe_codesign as mc
from moe_codesign.answers.frontier_rows import json_rows, report_rows
from moe_codesign.chips import load_chip
from moe_codesign.domain.failure import Failure, FailureKind
from moe_codesign.domain.pair import Pair
from moe_codesign.domain.routing import parse_routing
from moe_codesign.domain.trial import Refused
from moe_codesign.reports.html.page import write_html
from moe_codesign.reports.terminal.search import print_search
from moe_codesign.study.runner import SearchResult
from tests.conftest import make_space


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> SearchResult:
    folder = tmp_path_factory.mktemp("study")
    return mc.search(make_space(), trials=12, storage=f"sqlite:///{folder / 's.db'}")


def test_text_from_a_study_is_escaped(result: SearchResult, tmp_path: Path) -> None:
    hostile = dataclasses.replace(result, study="<script>alert(1)</script>", provenance={"a": "<b>"})
    write_html(tmp_path / "r.html", hostile)
    page = (tmp_path / "r.html").read_text()
    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "<dd>&lt;b&gt;</dd>" in page


def test_a_hostile_workload_name_is_escaped(tmp_path: Path) -> None:
    name = '"><script>alert(2)</script>'
    space = make_space(workload={"name": name}, objectives=[f"{name}.latency_us"], constraints={})
    mc.search(space, trials=3, storage=f"sqlite:///{tmp_path / 's.db'}", out=tmp_path)
    assert "<script>alert(2)" not in (tmp_path / "report.html").read_text()


def test_reports_count_refusals_by_their_kind(result: SearchResult, tmp_path: Path) -> None:
    # What the texts say does not matter.
    refused = Refused(Failure(FailureKind.QUALITY, "12 GB: too much"))
    changed = dataclasses.replace(
        result, trials=[dataclasses.replace(trial, outcome=refused) for trial in result.trials[:3]] + result.trials[3:]
    )
    counted = "3 quality"
    console = Console(record=True, width=200, file=io.StringIO())
    print_search(console, changed)
    assert counted in console.export_text()
    write_html(tmp_path / "r.html", changed)
    assert counted in (tmp_path / "r.html").read_text()


def test_reports_say_by_which_price_a_cost_is(tmp_path: Path) -> None:
    space = make_space(chips=["tpu_v6e"], constraints={}, objectives=["decode.usd_per_mtok"])
    result = SearchResult("costly", space, [], {}, {})
    says = "costs on tpu_v6e are by 2.7 $/h on_demand, 2026-11-22 (Google Cloud TPU pricing page"
    console = Console(record=True, width=400, file=io.StringIO(), markup=False)
    print_search(console, result)
    assert says in console.export_text()
    write_html(tmp_path / "r.html", result)
    assert says in (tmp_path / "r.html").read_text()


def test_notes_of_the_cost_model_reach_the_store_and_the_report(result: SearchResult, tmp_path: Path) -> None:
    sheet = "from the data sheet alone: no compiler for trainium2 here"
    (reference,) = result.reference["trainium2"]
    assert {pair.notes for trial in result.trials for pair in trial.pairs} == {reference.notes} == {(sheet,)}
    write_html(tmp_path / "r.html", result)
    pairs = sum(len(trial.pairs) for trial in result.trials)
    page = (tmp_path / "r.html").read_text()
    assert f"<p>[1] trainium2, {pairs} of {pairs} pairs and the reference: {sheet}</p>" in page
    assert "<td>datasheet [1]</td>" in page
    assert f"note: {sheet}" in page, "of a point"


def test_a_reference_that_does_not_fit_says_so(tmp_path: Path) -> None:
    shape = {"moe_intermediate_size": 128, "num_experts": 64, "num_experts_per_tok": 2}
    space = make_space(reference="DeepSeek-V3", shape=shape, constraints={})
    result = mc.search(space, trials=1, storage=f"sqlite:///{tmp_path / 's.db'}")
    console = Console(record=True, width=400, file=io.StringIO(), markup=False)
    print_search(console, result)
    assert re.search(r"trainium2, the reference: does not fit: the 58 MoE layers have \d+ GB", console.export_text())


def test_what_predict_warns_of_reaches_search_and_report(tmp_path: Path) -> None:
    """A prefill batch on an H100 has more rows per expert than were raced."""
    text = "more rows per expert than were raced"
    sizes = {"hidden_size": 2048, "moe_intermediate_size": 768, "num_experts": 128, "num_experts_per_tok": 8}
    (row,) = mc.predict([{"chip": "h100_sxm", "num_tokens": 16384, "ep": 4, **sizes}])
    assert text in row["warning"]
    shape = {"moe_intermediate_size": [704, 768]}
    space = make_space(
        chips=["h100_sxm"], shape=shape, workload={"num_tokens": 16384}, sampler="exact", constraints={}, tiles={}
    )
    storage = f"sqlite:///{tmp_path / 's.db'}"
    for result in (mc.search(space, storage=storage), mc.load_study("test", storage=storage)):
        console = Console(record=True, width=400, file=io.StringIO(), markup=False)
        print_search(console, result)
        assert re.search(rf"\[1\] h100_sxm, 2 of 2 pairs and the reference: {text}", console.export_text())
        assert any(text in note for note in json_rows(result)["notes"])
        assert text in mc.report(result, out=tmp_path / "r.html").read_text()


def test_rows_hold_the_price_of_their_cost(result: SearchResult) -> None:
    tpu = load_chip("tpu_v6e")
    (row,) = {row.price for row in report_rows(result)}
    assert row is None, "trainium2 has no price"
    costly = dataclasses.replace(report_rows(result)[0], price=tpu.price)
    assert costly.to_dict()["price"]["kind"] == "on_demand"


def test_a_pair_survives_json(result: SearchResult) -> None:
    pairs = [pair for trial in result.trials for pair in trial.pairs]
    assert pairs
    for pair in pairs:
        limited = dataclasses.replace(pair.workload, routing=parse_routing("power_law:1.2/8/4"))
        for one in (pair, dataclasses.replace(pair, workload=limited)):
            assert Pair.from_dict(json.loads(json.dumps(one.to_dict()))) == one
