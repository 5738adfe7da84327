"""What `list chips` prints."""

import io

from rich.console import Console

from moe_codesign.api import listing
from moe_codesign.chips import chip_names
from moe_codesign.reports.terminal.chips import print_chips

KEYS = ("chip", "product", "GB", "$/h", "price of", "price source", "numbers")
ROWS = [
    dict(zip(KEYS, values, strict=True))
    for values in (
        ("one", "One 80 GB", "80", 1.17, "own, 2026-07", "A list", "vendor"),
        ("two", "Two", "96", None, None, None, "second_hand"),
        ("six", "Six", "32", 2.7, "own, 2026-07", "A list", "vendor"),
    )
]
PRINTED = """\
chips
┏━━━━━━┳━━━━━━━━━━━┳━━━━┳━━━━━━┳━━━━━━━━━━━━━━┓
┃ chip ┃ product   ┃ GB ┃ $/h  ┃ price of     ┃
┡━━━━━━╇━━━━━━━━━━━╇━━━━╇━━━━━━╇━━━━━━━━━━━━━━┩
│ one  │ One 80 GB │ 80 │ 1.17 │ own, 2026-07 │
│ two  │ Two       │ 96 │ -    │ -            │
│ six  │ Six       │ 32 │ 2.7  │ own, 2026-07 │
└──────┴───────────┴────┴──────┴──────────────┘
GB are 10^9 bytes, of one chip; link is of one chip in one direction, to the chips of its scale-up domain; \
$/h is the price of one chip that costs are by: the first of on_demand, rental_3y, own \
that its file lists.
Prices of one, six: A list
Numbers of two are second-hand: their intervals are wider for it.
"""


def test_chips_are_printed_with_where_their_prices_are_from() -> None:
    text = io.StringIO()
    print_chips(Console(file=text, width=120), ROWS)
    assert "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n" == PRINTED


def test_every_chip_is_listed_and_every_price_has_a_date_and_a_source() -> None:
    rows = listing.rows("chips", "sqlite:///none.db")
    assert [row["chip"] for row in rows] == chip_names()
    for row in rows:
        assert "e+" not in "".join(map(str, row.values())), "numbers are shown without exponent"
        assert (row["$/h"] is None) == (row["price of"] is None) == (row["price source"] is None)
