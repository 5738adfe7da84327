"""Pages in a real browser, which has no network."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture
def open_page() -> Iterator[Callable[[Path], Any]]:
    """Opens a file; the page notes errors and requests in lists of those names."""
    if CHROMIUM is None:
        pytest.skip("no Chromium in this machine")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = browser.new_context(offline=True, viewport={"width": 1300, "height": 900})

        def opened(path: Path) -> Any:
            page = context.new_page()
            page.errors = []
            page.requests = []
            page.on("pageerror", lambda error: page.errors.append(str(error)))
            page.on("request", lambda request: page.requests.append(request.url))
            page.goto(path.as_uri())
            return page

        yield opened
        browser.close()
