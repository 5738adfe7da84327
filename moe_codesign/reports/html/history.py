"""The history of a regression suite as an HTML page."""

import html
from collections.abc import Sequence
from pathlib import Path

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from moe_codesign.files import replace_file
from moe_codesign.regression.history import Line
from moe_codesign.reports.html import plotly_text
from moe_codesign.storage.regressions import RegressionRun


def write_history(path: Path, suite: str, runs: Sequence[RegressionRun], every: Sequence[Line]) -> None:
    """Write the runs of a suite, oldest first, as one HTML file with a plot for each chip."""
    label = [
        f"{number} {plotly_text(run.revision)}<br>{plotly_text(', '.join(run.versions.values()))}"
        for number, run in enumerate(runs)
    ]
    plots = "".join(
        _plot(chip, [line for line in every if line.chip == chip], label, f"plot-{number}")
        for number, chip in enumerate(dict.fromkeys(line.chip for line in every))
    )
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(suite)}: history</title>'
        f"<script>{get_plotlyjs()}</script></head><body style='font-family:sans-serif;max-width:1100px;margin:auto'>"
        f"<h1>{html.escape(suite)}</h1><p>Cost over the first run's, of compiled kernels (modelled time where problems "
        "are listed, else cycles or instructions), the geometric mean over the tiles. 1 is unchanged, lower is better."
        f"</p>{plots}</body></html>"
    )
    replace_file(path, page.encode())


def _plot(chip: str, every: Sequence[Line], label: Sequence[str], div_id: str) -> str:
    """One chip's lines. Plotly reads a little HTML in every text, links included, so that each is escaped."""
    figure = go.Figure()
    for line in every:
        figure.add_scatter(
            x=list(range(len(label))), y=list(line.ratios), name=plotly_text(f"{line.kernel} ({line.read_from})"),
            text=label, mode="lines+markers", hovertemplate="%{text}<br>%{y:.3f}",
        )  # fmt: skip
    figure.update_layout(
        title=plotly_text(chip), template="simple_white", height=420, yaxis_title="cost over the first run's",
        xaxis={"title": "run", "dtick": 1}, legend={"orientation": "h", "y": -0.25},
    )  # fmt: skip
    text: str = figure.to_html(full_html=False, include_plotlyjs=False, div_id=div_id)
    return text
