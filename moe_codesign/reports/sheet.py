"""A table with its title and remarks, which a terminal and a Markdown page print alike."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from moe_codesign.cost.ratio import Ratio
from moe_codesign.errors import printable
from moe_codesign.reports.text import time_text


@dataclass(frozen=True)
class Sheet:
    """A table.

    Args:
        title: above it.
        header: names of the columns. The first one's cells are to the left, the others' to the right.
        rows: cells, as many in each row as there are columns.
        remarks: sentences below it.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    remarks: Sequence[str] = ()


def print_sheet(console: Console, sheet: Sheet) -> None:
    """Print it on a terminal."""
    console.print(printable(sheet.title), soft_wrap=True, highlight=False)  # a table's own is as narrow as the table
    table = Table()
    for place, name in enumerate(sheet.header):
        table.add_column(name, justify="right" if place else "left", overflow="fold")
    for row in sheet.rows:
        table.add_row(*map(printable, row))
    console.print(table)
    for remark in sheet.remarks:
        console.print(printable(remark), soft_wrap=True, highlight=False)


def sheet_markdown(sheet: Sheet) -> str:
    """It as part of a Markdown page, with its title as a heading."""
    lines = [sheet.header, ["---", *["---:"] * (len(sheet.header) - 1)], *sheet.rows]
    table = "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)
    return f"## {sheet.title}\n\n{table}" + "".join(f"\n{remark}\n" for remark in sheet.remarks)


def ratio_text(ratio: Ratio) -> str:
    """``1.23 (1.05 .. 1.44)``, with ``~`` where its interval holds 1; exactly 1 has no interval."""
    if ratio.low == ratio.high:
        return f"{ratio.value:.2f}"
    return f"{'~' if ratio.is_tie else ''}{ratio.value:.2f} ({ratio.low:.2f} .. {ratio.high:.2f})"


def cost_text(cost: float, unit: str) -> str:
    """Three digits and the unit; a time in the unit that suits it."""
    return time_text(cost) if unit == "us" else f"{cost:.3g} {unit}"
