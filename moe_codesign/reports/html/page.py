"""The report as one HTML file: plotly's script inside, nothing fetched."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from moe_codesign.answers.frontier_rows import PairNote, ReportRow, pair_notes, report_rows
from moe_codesign.answers.importances import importances_on
from moe_codesign.answers.money import cost_notes
from moe_codesign.answers.quality_notes import quality_notes
from moe_codesign.answers.recommendation import recommend
from moe_codesign.domain.pair import Pair
from moe_codesign.files import replace_file
from moe_codesign.reports.html import plotly_text
from moe_codesign.reports.text import interval_text, pair_cells, time_text
from moe_codesign.reports.tried import tried_text
from moe_codesign.study.runner import SearchResult

_COLOURS = {"joint": "#d97706", "nested": "#2563eb", "exact": "#2563eb", "polish": "#059669", "reference": "#111827"}
_SYMBOLS = {"joint": "circle", "nested": "diamond", "exact": "diamond", "polish": "square"}


def write_html(path: Path, result: SearchResult) -> None:
    """Write the report of a search."""
    rows = report_rows(result)
    notes = pair_notes(rows, result.reference)
    chips: list[dict[str, Any]] = []
    for chip in result.space.chips:
        own = [row for row in rows if row.pair.chip == chip.name]
        chips.append(
            {
                "name": chip.name,
                "product": chip.product,
                "recommendation": recommend(result, chip) or "",
                "grades": ", ".join(sorted({row.pair.timing.grade for row in own})) or "no feasible pair",
                "figures": [
                    _figure(own, result, chip.name, workload, f"plot-{len(chips)}-{number}")
                    for number, workload in enumerate(dict.fromkeys(row.pair.workload.name for row in own))
                ],
                "frontier": [_cells(row, notes) for row in own if row.on_frontier],
                "notes": [(number, note) for number, note in enumerate(notes, 1) if note.chip == chip.name],
                "importances": [
                    (name, ", ".join(f"{field} {share:.0%}" for field, share in shares.items()))
                    for name, shares in importances_on(result, chip).items()
                ],
                "tried": tried_text(result, chip.name),
            }
        )
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template("report.html").render(
        result=result,
        chips=chips,
        quality=quality_notes(result),
        provenance=result.provenance,
        plotly=get_plotlyjs(),
        costs=cost_notes(result.space.chips, ["price", "power"]),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, page.encode())


def _figure(rows: list[ReportRow], result: SearchResult, chip: str, workload: str, div_id: str) -> str:
    own = [row for row in rows if row.pair.workload.name == workload]
    figure = go.Figure()
    for mode in dict.fromkeys(row.mode for row in own):
        for on_frontier in (False, True):
            points = [row for row in own if row.mode == mode and row.on_frontier == on_frontier]
            if points:
                figure.add_trace(_trace(points, mode, on_frontier))
    for pair in result.reference.get(chip, ()):
        if pair.workload.name == workload:
            figure.add_trace(
                go.Scatter(
                    x=[pair.timing.latency_us],
                    y=[pair.quality_ratio],
                    mode="markers",
                    name=plotly_text(f"{result.space.reference}, default tile"),
                    marker={"symbol": "star", "size": 14, "color": _COLOURS["reference"]},
                    hovertext=[_hover(pair, "reference")],
                    hoverinfo="text",
                )
            )
    tokens = own[0].pair.workload.num_tokens
    grades = ", ".join(sorted({row.pair.timing.grade for row in own}))
    figure.update_layout(
        title=plotly_text(f"{workload}: {tokens} tokens"),
        xaxis={"title": f"time of one layer, us ({grades}; bars: interval)", "type": "log"},
        yaxis={"title": plotly_text(f"quality over {result.space.reference}")},
        template="plotly_white",
        height=420,
        margin={"l": 60, "r": 20, "t": 50, "b": 50},
        legend={"orientation": "h", "y": -0.2},
    )
    return str(figure.to_html(full_html=False, include_plotlyjs=False, div_id=div_id, config={"responsive": True}))


def _trace(points: list[ReportRow], mode: str, on_frontier: bool) -> Any:
    timings = [row.pair.timing for row in points]
    bars = {
        "type": "data",
        "symmetric": False,
        "array": [t.high_us - t.latency_us for t in timings],
        "arrayminus": [t.latency_us - t.low_us for t in timings],
        "thickness": 1,
        "color": "rgba(100,100,100,0.35)",
    }
    return go.Scatter(
        x=[t.latency_us for t in timings],
        y=[row.pair.quality_ratio for row in points],
        mode="markers",
        name=f"{mode}, frontier" if on_frontier else mode,
        marker={
            "symbol": _SYMBOLS[mode],
            "size": 11 if on_frontier else 6,
            "color": _COLOURS[mode],
            "opacity": 1.0 if on_frontier else 0.35,
        },
        error_x=bars if on_frontier else None,
        hovertext=[_hover(row.pair, f"{row.mode} {row.trial}") for row in points],
        hoverinfo="text",
    )


def _hover(pair: Pair, found_by: str) -> str:
    """Plotly reads a little HTML here."""
    lines = [
        pair.shape.label(),
        f"{time_text(pair.timing.latency_us)} ({interval_text(pair.timing)}), {pair.timing.grade}",
        f"tiles {pair.tiles.label() if pair.tiles else 'none'}",
        f"limited by {pair.timing.limiter}, {pair.timing.share_of_bound:.0%} of the physical bound's speed",
        f"quality {pair.quality_ratio - 1:+.1%}",
        found_by,
        *(f"note: {text}" for text in pair.notes),
    ]
    first, *rest = map(plotly_text, lines)
    return "<br>".join([f"<b>{first}</b>", *rest])


def _cells(row: ReportRow, notes: Sequence[PairNote]) -> list[str]:
    return [*pair_cells(row, notes), f"{row.metrics['usd_per_mtok']:.3g}" if "usd_per_mtok" in row.metrics else "-"]
