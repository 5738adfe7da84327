"""The report in a real browser, without network."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import moe_codesign as mc
from tests.conftest import make_space


@pytest.fixture
def page(open_page: Callable[[Path], Any], tmp_path: Path) -> Any:
    mc.search(make_space(), trials=40, storage=f"sqlite:///{tmp_path / 's.db'}", out=tmp_path / "out")
    return open_page(tmp_path / "out" / "report.html")


def test_points_are_drawn_and_readable_on_hover(page: Any) -> None:
    page.wait_for_selector(".js-plotly-plot .points path")
    points = page.locator(".js-plotly-plot .scatterlayer .points path")
    assert points.count() >= 5
    # The last point drawn is on top: the reference's star.
    box = points.last.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_selector(".hoverlayer .hovertext")
    text = page.locator(".hoverlayer .hovertext").first.text_content()
    assert "H2048" in text
    assert "datasheet" in text
    assert page.errors == []
    assert all(url.startswith(("file:", "data:", "blob:")) for url in page.requests), "nothing is fetched"


def test_every_time_in_the_table_has_its_grade(page: Any) -> None:
    rows = page.locator("table tr").all()
    head = rows[0].locator("th").all_inner_texts()
    grade = head.index("grade")
    assert len(rows) > 1
    for row in rows[1:]:
        # A number behind the grade leads to a note on the time.
        assert row.locator("td").nth(grade).inner_text().split()[0] == "datasheet"
