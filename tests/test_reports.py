import dataclasses
from pathlib import Path

from moe_codesign import api
from moe_codesign.pair import Pair
from moe_codesign.reports.html import write_html
from tests.conftest import make_space


def test_text_from_a_study_is_escaped(tmp_path: Path) -> None:
    result = api.search(make_space(chips='"trainium2"'), trials=3, storage=f"sqlite:///{tmp_path / 's.db'}")
    write_html(tmp_path / "r.html", dataclasses.replace(result, study="<script>alert(1)</script>"), {"a": "<b>"})
    page = (tmp_path / "r.html").read_text()
    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_a_pair_survives_json(tmp_path: Path) -> None:
    import json

    result = api.search(make_space(chips='"trainium2"', constraint=""), trials=3, storage=f"sqlite:///{tmp_path}/s.db")
    for trial in result.trials:
        for pair in trial.pairs:
            assert Pair.from_dict(json.loads(json.dumps(pair.to_dict()))) == pair
