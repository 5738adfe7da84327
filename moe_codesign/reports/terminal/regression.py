"""Regression tests on the terminal."""

from collections import Counter
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table

from moe_codesign.regression.history import Line
from moe_codesign.regression.run import RegressionResult, VersionColumn
from moe_codesign.reports.text import loss_text
from moe_codesign.storage.regressions import RegressionRun

_MOST = 20
"""Changes of a kind that fail nothing are shown up to this many; --json has all."""


def regression_lines(result: RegressionResult) -> Iterator[str]:
    """Say what moved, the worst first, and sum up in a last line."""
    name = result.suite.name
    for problem in result.suite.problems:
        yield f"modelled: {problem}"
    for place, reason in result.reasons.items():
        yield f"note: {place}: {reason}"
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
        yield from (f"{word}: {place}{without if place in found.new_without else ''}" for place in places[:_MOST])
        if len(places) > _MOST:
            yield f"{word}: {len(places) - _MOST} more; --json has all"
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


def print_matrix(console: Console, columns: Sequence[VersionColumn]) -> None:
    """Print a table with a row for each version, then the facts that are worse and the tiles that went stale."""
    table = Table(title=f"compared with {columns[0].name}", title_justify="left")
    for name in ("version", "compiled", "without a binary", "worse", "better", "moved", "stale tiles"):
        table.add_column(name, justify="left" if name == "version" else "right")
    for column in columns:
        counts = Counter(one.change for one in column.comparison.findings)
        bad = sum(not facts.ok for facts in column.baseline.facts.values())
        numbers = (len(column.baseline.facts) - bad, bad, *(counts[c] for c in ("regression", "better", "moved")))
        table.add_row(column.name, *map(str, numbers), str(len(column.stale)))
    console.print(table)
    for column in columns[1:]:
        for one in column.comparison.regressions:
            console.print(f"{column.name}: {one.line()}", highlight=False, soft_wrap=True)
        for s in column.stale:
            console.print(
                f"{column.name}: {s.kernel} | {s.chip} | {s.problem}: best tile {s.old_tile} -> {s.new_tile}, keeping "
                f"the old costs {loss_text(s.loss)}", highlight=False, soft_wrap=True,
            )  # fmt: skip


def print_history(console: Console, suite: str, runs: Sequence[RegressionRun], every: Sequence[Line]) -> None:
    """Print a line for each kernel and chip, with a bar for each run."""
    table = Table(title=f"{suite}: {len(runs)} runs, {runs[0].created} to {runs[-1].created}", title_justify="left")
    for name in ("kernel", "chip", "read from", "first to last", "last over first"):
        table.add_column(name, justify="right" if name == "last over first" else "left")
    for line in every:
        last = next((r for r in reversed(line.ratios) if r is not None), None)
        table.add_row(line.kernel, line.chip, line.read_from, line.sparkline(), "-" if last is None else f"{last:.3f}")
    console.print(table)
    if len(runs) > _MOST:
        console.print(f"not shown: {len(runs) - _MOST} earlier runs", highlight=False)
    for run in runs[-_MOST:]:
        console.print(
            f"{run.created} {run.revision}: {run.regressions} worse; {', '.join(run.versions.values())}",
            highlight=False,
        )
