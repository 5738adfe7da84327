"""Regression tests as text, Markdown and HTML."""

import html
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs
from rich.console import Console
from rich.table import Table

from moe_codesign.regression.history import Line, lines
from moe_codesign.regression.rules import Finding, number_text, place_text
from moe_codesign.regression.run import RegressionResult, VersionColumn
from moe_codesign.store import RegressionRun

_MOST = 20
"""Lines of changes that fail nothing; --json has all."""


def regression_lines(result: RegressionResult) -> Iterator[str]:
    """What moved, the worst first, and a last line that sums up."""
    name = result.suite.name
    for place, reason in result.reasons.items():
        yield f"note: {place_text(place)}: {reason}"
    found = result.comparison
    if found is None:
        yield f"{name}: baseline {result.suite.baseline} made, {result.observed} kernels"
        return
    for backend, old in found.old_versions.items():
        if (new := found.new_versions.get(backend)) != old:
            yield f"note: the baseline was made with {old}, this run with {new}"
    for change, word in (("regression", "REGRESSION"), ("better", "better"), ("moved", "moved")):
        of_kind = [one for one in found.findings if one.change == change]
        shown = of_kind if change == "regression" else of_kind[:_MOST]
        yield from (f"{word}: {one.line()}" for one in shown)
        if len(of_kind) > len(shown):
            yield f"{word}: {len(of_kind) - len(shown)} more; --json has all"
    for word, places in (("new", found.new), ("not run", found.gone)):
        without = " without a binary" if word == "new" else ""
        yield from (
            f"{word}: {place_text(place)}{without if place in found.new_without else ''}" for place in places[:_MOST]
        )
        if len(places) > _MOST:
            yield f"{word}: {len(places) - _MOST} more"
    counts = Counter(one.change for one in found.findings)
    summary = (
        f"{name}: {result.observed} kernels, {counts['regression']} worse, {counts['better']} better, "
        f"{counts['moved']} moved within their rules, {len(found.new)} new, {len(found.gone)} not run"
    )
    if result.updated:
        yield summary + "; baseline rewritten"
    else:
        lost = found.gone or found.new_without
        yield summary + ("; what is not run, or new without a binary, fails until --update accepts it" if lost else "")


def matrix_markdown(suite: str, columns: Sequence[VersionColumn]) -> str:
    """The page of a version matrix: what moved beyond its rule from the first version to each other."""
    first = columns[0]
    parts = [
        f"# {suite}: {', '.join(column.name for column in columns)}",
        "",
        f"Every kernel of the suite compiled by each version; changes are from {first.name}. worse, better: facts "
        "beyond their rule, or on the good side of it; the tables below have those that are worse.",
        "",
        "| version | " + " | ".join(_compilers(column) for column in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    chips = sorted({chip for _, chip, _ in first.baseline.facts})
    for chip in chips:
        cells = []
        for column in columns:
            places = [place for place in column.baseline.facts if place[1] == chip]
            bad = sum(column.baseline.facts[place].get("status") != "ok" for place in places)
            counts = Counter(one.change for one in column.comparison.findings if one.chip == chip)
            text = f"{len(places) - bad} compiled" + (f", {bad} without a binary" if bad else "")
            if column is not first:
                text += f"; {counts['regression']} worse, {counts['better']} better, {counts['moved']} moved"
            cells.append(text)
        parts.append(f"| {chip} | " + " | ".join(cells) + " |")
    for column in columns:
        reasons = Counter(str(f["reason"]) for f in column.baseline.facts.values() if "reason" in f)
        parts += ["", *(f"{column.name}: {count} without a binary: {text}" for text, count in reasons.most_common())]
    for column in columns[1:]:
        parts += ["", f"## From {first.name} to {column.name}", ""]
        parts += list(_by_fact(column.comparison.findings)) or ["Nothing moved."]
        worse = column.comparison.regressions
        if worse:
            parts += ["", "| kernel | chip | tile | fact | was | is |", "|---|---|---|---|---|---|"]
            parts += [
                f"| {f.kernel} | {f.chip} | {f.tile} | {f.fact} | {number_text(f.old)} | {number_text(f.new)} |"
                for f in worse
            ]
        parts += ["", f"### Tiles no longer the best under {column.name}", ""]
        if not column.stale:
            parts.append("None: each problem's best tile is the same, or within 1 % of the new best.")
            continue
        parts += [
            "| kernel | chip | problem | was best | is best | keeping the old costs |",
            "|---|---|---|---|---|---|",
        ]
        parts += [
            f"| {s.kernel} | {s.chip} | {s.problem} | {s.old_tile} | {s.new_tile} | {_loss(s.loss)} |"
            for s in column.stale
        ]
    return "\n".join(parts) + "\n"


def _compilers(column: VersionColumn) -> str:
    return f"{column.name} ({'; '.join(column.baseline.made_with.values())})"


def _loss(loss: float) -> str:
    return "it does not compile" if loss == float("inf") else f"{loss:.1%}"


def _by_fact(findings: Sequence[Finding]) -> Iterator[str]:
    """A table of facts: how many are worse, better, moved."""
    counts = Counter((one.fact.partition(" ")[0], one.change) for one in findings)
    facts = sorted({fact for fact, _ in counts})
    if facts:
        yield "| fact | worse | better | moved within its rule |"
        yield "|---|---|---|---|"
    for fact in facts:
        yield f"| {fact} | " + " | ".join(str(counts[fact, c]) for c in ("regression", "better", "moved")) + " |"


def print_matrix(console: Console, columns: Sequence[VersionColumn]) -> None:
    """How many facts moved, a version a row, and the tiles that went stale."""
    table = Table(title=f"beside {columns[0].name}", title_justify="left")
    for name in ("version", "compiled", "without a binary", "worse", "better", "moved", "stale tiles"):
        table.add_column(name, justify="left" if name == "version" else "right")
    for column in columns:
        counts = Counter(one.change for one in column.comparison.findings)
        bad = sum(facts.get("status") != "ok" for facts in column.baseline.facts.values())
        numbers = (len(column.baseline.facts) - bad, bad, *(counts[c] for c in ("regression", "better", "moved")))
        table.add_row(column.name, *map(str, numbers), str(len(column.stale)))
    console.print(table)
    for column in columns[1:]:
        for one in column.comparison.regressions:
            console.print(f"{column.name}: {one.line()}", highlight=False, soft_wrap=True)
        for s in column.stale:
            console.print(
                f"{column.name}: {s.kernel} | {s.chip} | {s.problem}: best tile {s.old_tile} -> {s.new_tile}, keeping "
                f"the old costs {_loss(s.loss)}", highlight=False, soft_wrap=True,
            )  # fmt: skip


def print_history(console: Console, suite: str, runs: Sequence[RegressionRun]) -> None:
    """A bar a run, a line a kernel and chip."""
    table = Table(title=f"{suite}: {len(runs)} runs, {runs[0].created} to {runs[-1].created}", title_justify="left")
    for name in ("kernel", "chip", "read from", "first to last", "last over first"):
        table.add_column(name, justify="right" if name == "last over first" else "left")
    for line in lines(runs):
        last = next((r for r in reversed(line.ratios) if r is not None), None)
        table.add_row(line.kernel, line.chip, line.metric, line.sparkline(), "-" if last is None else f"{last:.3f}")
    console.print(table)
    for run in runs[-_MOST:]:
        console.print(
            f"{run.created} {run.revision}: {run.regressions} regressions; {', '.join(run.versions.values())}",
            highlight=False,
        )


def write_history(path: Path, suite: str, runs: Sequence[RegressionRun]) -> None:
    """The same as one HTML file: a plot a chip."""
    every = lines(runs)
    label = [
        f"{number} {run.revision}<br>{html.escape(', '.join(run.versions.values()))}" for number, run in enumerate(runs)
    ]
    plots = "".join(
        _plot(chip, [line for line in every if line.chip == chip], label)
        for chip in dict.fromkeys(line.chip for line in every)
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(suite)}: history</title>'
        f"<script>{get_plotlyjs()}</script></head><body style='font-family:sans-serif;max-width:1100px;margin:auto'>"
        f"<h1>{html.escape(suite)}</h1><p>Cost over the first run's, of compiled kernels (modelled time where problems "
        "are listed, else cycles or instructions), the geometric mean over the tiles. 1 is unchanged, lower is better."
        f"</p>{plots}</body></html>"
    )


def _plot(chip: str, every: Sequence[Line], label: Sequence[str]) -> str:
    figure = go.Figure()
    for line in every:
        figure.add_scatter(
            x=list(range(len(label))), y=list(line.ratios), name=f"{line.kernel} ({line.metric})", text=label,
            mode="lines+markers", hovertemplate="%{text}<br>%{y:.3f}",
        )  # fmt: skip
    figure.update_layout(
        title=chip, template="simple_white", height=420, yaxis_title="cost over the first run's",
        xaxis={"title": "run", "dtick": 1}, legend={"orientation": "h", "y": -0.25},
    )  # fmt: skip
    text: str = figure.to_html(full_html=False, include_plotlyjs=False, div_id=f"plot-{chip}")
    return text
