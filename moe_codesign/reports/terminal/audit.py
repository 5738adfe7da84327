"""Tables for a terminal. Everything with a time shows its grade."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from moe_codesign.answers.audit import LOSSES, AuditRow
from moe_codesign.reports.text import interval_text, time_text


def print_audit(console: Console, title: str, rows: Sequence[AuditRow]) -> None:
    """Losses per chip and token count, as shares of the time."""
    names = [n for n in LOSSES if any(row.estimate and row.estimate.losses_us.get(n) for row in rows)]
    table = Table(title=title, title_justify="left")
    for column in ("chip", "tokens", "time", "interval", "grade", "bound", "of bound"):
        table.add_column(column, justify="left" if column == "chip" else "right", no_wrap=True)
    for name in names:
        table.add_column(f"lost: {name}", justify="right")
    table.add_column("tiles: GEMM 1 | GEMM 2", overflow="fold")
    for row in rows:
        if row.estimate is None:
            table.add_row(row.chip, str(row.num_tokens), row.error)
            continue
        timing, losses = row.estimate.timing, row.estimate.losses_us
        table.add_row(
            row.chip,
            str(row.num_tokens),
            time_text(timing.latency_us),
            interval_text(timing),
            timing.grade,
            time_text(timing.bound_us),
            f"{timing.share_of_bound:.0%}",
            *(f"{losses[n] / timing.latency_us:.0%}" if n in losses else "-" for n in names),
            " | ".join(t.label() for t in row.estimate.tiles) or "-",
        )
    console.print(table)
