"""The table of a measurement, for a terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from moe_codesign.answers.bench import BenchRow
from moe_codesign.reports.text import interval_text, time_text


def print_bench(console: Console, title: str, rows: Sequence[BenchRow]) -> None:
    """Measured tiles, one row each, then the device that they were measured on."""
    table = Table(title=title, title_justify="left")
    for column in ("tokens", "tiles: GEMM 1 | GEMM 2", "time", "5..95 %", "grade", "samples", "row error", "checks"):
        table.add_column(column, justify="right" if column != "tiles: GEMM 1 | GEMM 2" else "left")
    for row in rows:
        tiles = " | ".join(tile.label() for tile in row.tiles)
        if row.timing is None:
            table.add_row(str(row.num_tokens), tiles, row.reason.text if row.reason is not None else "-")
            continue
        timing = row.timing
        table.add_row(
            str(row.num_tokens),
            tiles,
            time_text(timing.latency_us),
            interval_text(timing),
            "implausible" if timing.implausible else timing.grade,
            str(len(timing.samples_us)),
            f"{row.error:.2g}",
            str(row.checks),
        )
    console.print(table)
    done = next((row for row in rows if row.timing is not None), None)
    if done is not None:
        console.print(f"{done.device}, {done.software}")
