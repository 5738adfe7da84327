"""Texts that reports share: times, intervals, cells of a pair."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from moe_codesign.answers.frontier_rows import PairNote, ReportRow
from moe_codesign.domain.pair import Pair
from moe_codesign.domain.routing import Histogram, Routing
from moe_codesign.domain.timing import Timing
from moe_codesign.errors import printable


def time_text(us: float) -> str:
    """``12.3 us``, ``4.56 ms``: three digits."""
    if us >= 1e6:
        return f"{us / 1e6:.3g} s"
    return f"{us / 1e3:.3g} ms" if us >= 1e3 else f"{us:.3g} us"


def interval_text(timing: Timing) -> str:
    """``low .. high``."""
    return f"{time_text(timing.low_us)} .. {time_text(timing.high_us)}"


def loss_text(loss: float) -> str:
    """Say how much slower a stale tile is, or that it does not compile."""
    return "it does not compile" if loss == float("inf") else f"{loss:.1%}"


def _routing_text(routing: Routing) -> str:
    """A routing in a table's cell; a histogram's text can be as long as a model has experts."""
    return "histogram" if isinstance(routing, Histogram) else str(routing)


def quality_text(pair: Pair) -> str:
    """``+3.1%``, with what other laws say in brackets, and ``*`` where the law's experiments had no such shape."""
    own = f"{pair.quality_ratio - 1:+.1%}" + ("*" if pair.outside else "")
    if not pair.quality_by_law:
        return own
    low, high = min(pair.quality_by_law.values()) - 1, max(pair.quality_by_law.values()) - 1
    return f"{own} ({low:+.0%})" if len(pair.quality_by_law) == 1 else f"{own} ({low:+.0%} .. {high:+.0%})"


def pair_cells(row: ReportRow, notes: Sequence[PairNote]) -> list[str]:
    """Shape to gain of one pair, as the terminal and the HTML report print them.

    Args:
        row: the pair.
        notes: those that are printed below the table, numbered from 1; the pair's are named behind its grade.
    """
    pair = row.pair
    marks = "".join(f" [{number}]" for number, note in enumerate(notes, 1) if note.is_on(pair))
    workload = pair.workload
    split = f" ep{workload.ep}" if workload.ep > 1 else ""
    return [
        pair.shape.label(),
        f"{workload.name} {workload.num_tokens}{split} {workload.dtype} {_routing_text(workload.routing)}",
        f"{row.mode} {row.trial}",
        pair.tiles.label() if pair.tiles else "-",
        time_text(pair.timing.latency_us),
        interval_text(pair.timing),
        pair.timing.grade + marks,
        f"{row.share_of_peak:.0%}",
        pair.timing.limiter,
        quality_text(pair),
        "-" if row.gain is None else f"{row.gain:.2f}x",
    ]


def print_rows(console: Console, title: str, rows: Sequence[dict[str, Any]]) -> None:
    """A plain table of dictionaries with the same keys."""
    table = Table(title=title, title_justify="left")
    for column in rows[0] if rows else ():
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*("-" if v is None else printable(str(v)) for v in row.values()))
    console.print(table)
