"""Names that others have chosen are shown as they are; none of them runs, links or fetches anything."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import moe_codesign as mc
from moe_codesign.regression.history import lines
from moe_codesign.reports.html.history import write_history
from moe_codesign.reports.html.page import write_html
from moe_codesign.storage.regressions import FactRow, RegressionRun
from tests.conftest import make_space
from tests.study.test_space import chip_file

HOSTILE = (
    "<script>window.ran = 1</script>"
    '"><img src=x onerror="window.ran = 1">'
    "<a href='javascript:window.ran = 1'>here</a>"
)  # fmt: skip
FOLDER = HOSTILE.replace("/", "")
"""The same where a name may be a folder's, and so have no slash."""


def is_harmless(page: Any, *shown: str) -> None:
    page.wait_for_selector(".js-plotly-plot .points path")
    page.mouse.move(300, 400)
    assert page.evaluate("window.ran") is None
    assert page.locator("img").count() == 0
    linked = "all => all.filter(one => /javascript:/i.test(one.outerHTML)).length"
    assert page.locator("body a").evaluate_all(linked) == 0
    assert page.errors == []
    assert all(url.startswith(("file:", "data:", "blob:")) for url in page.requests), "nothing is fetched"
    text = page.locator("body").text_content()
    for one in shown:
        assert one in text, "it is shown as it is"


def test_no_name_of_a_search_runs(open_page: Callable[[Path], Any], tmp_path: Path) -> None:
    chip = chip_file(tmp_path / "mine.toml", "mine")
    text = chip.read_text()
    product = next(line for line in text.splitlines() if line.startswith("product"))
    text = text.replace('name = "mine"', f"name = {json.dumps('chip ' + FOLDER)}")
    chip.write_text(text.replace(product, f"product = {json.dumps('product ' + HOSTILE)}"))
    workload = f"workload {HOSTILE}"
    space = make_space(
        chips=[str(chip)], workload={"name": workload}, objectives=[f"{workload}.latency_us"], constraints={}
    )
    result = mc.search(space, trials=4, storage=f"sqlite:///{tmp_path / 's.db'}", study=f"study {FOLDER}")
    other = dataclasses.replace(
        result,
        space=space.model_copy(update={"reference": f"reference {HOSTILE}"}),
        provenance={f"package {HOSTILE}": HOSTILE},
    )
    write_html(tmp_path / "r.html", other)
    is_harmless(open_page(tmp_path / "r.html"), f"study {FOLDER}", f"product {HOSTILE}", f"workload {HOSTILE}")


def test_no_name_of_a_history_runs(open_page: Callable[[Path], Any], tmp_path: Path) -> None:
    row: FactRow = {"status": "ok", "cycles": 3.0, "bundles": 4}
    facts = {(f"kernel {HOSTILE}", f"chip {HOSTILE}", f"tile {HOSTILE}"): row}
    runs = [
        RegressionRun(f"suite {HOSTILE}", f"2026-01-0{day}", f"revision {HOSTILE}", {"a": f"1 {HOSTILE}"}, 0, facts)
        for day in (1, 2)
    ]
    every = lines(runs)
    assert every
    write_history(tmp_path / "h.html", f"suite {HOSTILE}", runs, every)
    is_harmless(open_page(tmp_path / "h.html"), f"suite {HOSTILE}", f"chip {HOSTILE}")
