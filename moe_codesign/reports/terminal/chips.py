"""The chips that there are, for a terminal."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from moe_codesign.chips.schema import PRICE_KINDS
from moe_codesign.reports.text import print_rows

_SOURCE, _NUMBERS = "price source", "numbers"


def print_chips(console: Console, rows: Sequence[dict[str, Any]]) -> None:
    """A table with one line per chip; below it where the prices are from, each source once, and what is in doubt."""
    shown = [{key: value for key, value in row.items() if key not in (_SOURCE, _NUMBERS)} for row in rows]
    print_rows(console, "chips", shown)
    console.print(
        "GB are 10^9 bytes, of one chip; link is of one chip in one direction, to the chips of its scale-up domain; "
        "$/h is the price of one chip that costs are by: the first of "
        f"{', '.join(PRICE_KINDS)} that its file lists.",
        highlight=False,
        soft_wrap=True,
    )
    for source in dict.fromkeys(row[_SOURCE] for row in rows if row[_SOURCE]):
        chips = ", ".join(row["chip"] for row in rows if row[_SOURCE] == source)
        console.print(f"Prices of {chips}: {source}", highlight=False, soft_wrap=True)
    if doubtful := [row["chip"] for row in rows if row[_NUMBERS] == "second_hand"]:
        console.print(
            f"Numbers of {', '.join(doubtful)} are second-hand: their intervals are wider for it.",
            highlight=False,
            soft_wrap=True,
        )
