import dataclasses
from pathlib import Path

import moe_codesign as mc
from moe_codesign.domain.pair import Pair
from moe_codesign.domain.routing import parse_routing
from moe_codesign.reports.html.page import write_html
from moe_codesign.study.space import parse_space
from tests.conftest import make_space, space_text


def test_text_from_a_study_is_escaped(tmp_path: Path) -> None:
    result = mc.search(make_space(chips='"trainium2"'), trials=3, storage=f"sqlite:///{tmp_path / 's.db'}")
    write_html(tmp_path / "r.html", dataclasses.replace(result, study="<script>alert(1)</script>"), {"a": "<b>"})
    page = (tmp_path / "r.html").read_text()
    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_a_hostile_workload_name_is_escaped(tmp_path: Path) -> None:
    name = '"><script>alert(2)</script>'
    text = space_text(chips='"trainium2"', constraint="").replace('"decode"', f"'{name}'")
    text = text.replace('"decode.latency_us"', f"'{name}.latency_us'")
    mc.search(parse_space(text), trials=3, storage=f"sqlite:///{tmp_path / 's.db'}", out=tmp_path)
    assert "<script>alert(2)" not in (tmp_path / "report.html").read_text()


def test_a_pair_survives_json(tmp_path: Path) -> None:
    import json

    result = mc.search(make_space(chips='"trainium2"', constraint=""), trials=3, storage=f"sqlite:///{tmp_path}/s.db")
    for trial in result.trials:
        for pair in trial.pairs:
            limited = dataclasses.replace(pair.workload, routing=parse_routing("power_law:1.2/8/4"))
            for one in (pair, dataclasses.replace(pair, workload=limited)):
                assert Pair.from_dict(json.loads(json.dumps(one.to_dict()))) == one
