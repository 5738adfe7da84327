"""Regression results as Markdown."""

import html
from collections import Counter
from collections.abc import Iterator, Sequence

from moe_codesign.regression.rules import Finding, number_text
from moe_codesign.regression.run import VersionColumn
from moe_codesign.reports.text import loss_text


def matrix_markdown(suite: str, columns: Sequence[VersionColumn]) -> str:
    """Write the page of a version matrix: what moved beyond its rule from the first version to each other."""
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
    chips = sorted({place.chip for place in first.baseline.facts})
    for chip in chips:
        cells = []
        for column in columns:
            places = [place for place in column.baseline.facts if place.chip == chip]
            bad = sum(not column.baseline.facts[place].ok for place in places)
            counts = Counter(one.change for one in column.comparison.findings if one.place.chip == chip)
            text = f"{len(places) - bad} compiled" + (f", {bad} without a binary" if bad else "")
            if column is not first:
                text += f"; {counts['regression']} worse, {counts['better']} better, {counts['moved']} moved"
            cells.append(text)
        parts.append(f"| {chip} | " + " | ".join(cells) + " |")
    for column in columns:
        reasons = Counter(f.reason for f in column.baseline.facts.values() if f.reason is not None)
        for text, count in reasons.most_common():
            parts += ["", f"{column.name}: {count} without a binary: {text}"]
    for column in columns[1:]:
        parts += ["", f"## From {first.name} to {column.name}", ""]
        parts += list(_by_fact(column.comparison.findings)) or ["Nothing moved."]
        worse = column.comparison.regressions
        if worse:
            parts += ["", "| kernel | chip | tile | fact | was | is |", "|---|---|---|---|---|---|"]
            parts += [
                "| " + " | ".join((*f.place, str(f.what), number_text(f.old), number_text(f.new))) + " |" for f in worse
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
            f"| {s.kernel} | {s.chip} | {s.problem} | {s.old_tile} | {s.new_tile} | {loss_text(s.loss)} |"
            for s in column.stale
        ]
    # The names of kernels and chips are other people's.
    return html.escape("\n".join(parts), quote=False) + "\n"


def _compilers(column: VersionColumn) -> str:
    """Name a column and the compilers that made its facts."""
    return f"{column.name} ({'; '.join(column.baseline.made_with.values())})"


def _by_fact(findings: Sequence[Finding]) -> Iterator[str]:
    """Write a Markdown table of the facts that moved: how often each is worse, better or moved within its rule."""
    counts = Counter((one.name, one.change) for one in findings)
    facts = sorted({fact for fact, _ in counts})
    if facts:
        yield "| fact | worse | better | moved within its rule |"
        yield "|---|---|---|---|"
    for fact in facts:
        yield f"| {fact} | " + " | ".join(str(counts[fact, c]) for c in ("regression", "better", "moved")) + " |"
