"""The picture of results/accuracy/README.md."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sets import Set


def plot(sets: Sequence[Set], path: Path) -> None:
    """Predicted against measured, and error by tokens and by shape, of the test split."""
    import plotly.graph_objects as go
    from playwright.sync_api import sync_playwright
    from plotly.subplots import make_subplots

    measured = np.concatenate([one.test.latency_us for one in sets])
    predicted = np.concatenate([one.test_us for one in sets])
    tokens = np.concatenate([one.test.columns.num_tokens for one in sets]).astype(int)
    shapes = np.concatenate([one.test.shape_key for one in sets])
    error = 100 * (predicted / measured - 1)
    figure = make_subplots(
        1, 3, subplot_titles=("us: predicted over measured", "error % by tokens", "error % by shape")
    )
    some = np.random.default_rng(0).choice(len(measured), min(4000, len(measured)), replace=False)
    dots: dict[str, Any] = {"mode": "markers", "marker": {"size": 3, "opacity": 0.4}}
    figure.add_trace(go.Scatter(x=measured[some], y=predicted[some], **dots), 1, 1)
    ends = [float(measured.min()), float(measured.max())]
    figure.add_trace(go.Scatter(x=ends, y=ends, mode="lines", line={"color": "black", "width": 1}), 1, 1)
    for t in np.unique(tokens):
        figure.add_trace(go.Box(y=error[tokens == t], name=str(t), boxpoints=False, marker_color="#3366aa"), 1, 2)
    for key in np.unique(shapes):
        figure.add_trace(go.Box(y=error[shapes == key], name=str(key), boxpoints=False, marker_color="#aa6633"), 1, 3)
    figure.update_xaxes(type="log", row=1, col=1)
    figure.update_yaxes(type="log", row=1, col=1)
    figure.update_yaxes(range=[-40, 40], col=2)
    figure.update_yaxes(range=[-40, 40], col=3)
    figure.update_layout(showlegend=False, template="plotly_white", width=1400, height=440, margin={"t": 40})
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        page_file = Path(folder) / "plot.html"
        figure.write_html(page_file)
        browser = play.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1420, "height": 460})
        page.goto(page_file.as_uri())
        page.wait_for_selector(".main-svg")
        page.screenshot(path=path)
        browser.close()
