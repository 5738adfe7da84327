"""A model served on a chip, for a terminal."""

from rich.console import Console

from moe_codesign.answers.serving_frontier import ServingFrontier, ServingPoint
from moe_codesign.errors import printable
from moe_codesign.reports.sheet import Sheet, print_sheet

_HEADER = (
    "tok/s/user", "tok/s/chip", "chips", "split", "requests", "TPOT ms", "90 %", "TTFT ms", "$/Mtok", "J/token", "GB",
)  # fmt: skip


def print_frontier(console: Console, result: ServingFrontier) -> None:
    """The deployments that no other one beats, fastest for a user first."""
    if result.reason:
        console.print(printable(f"{result.model} on {result.chip}: {result.reason}"), soft_wrap=True, highlight=False)
    else:
        print_sheet(console, frontier_sheet(result))


def frontier_sheet(result: ServingFrontier) -> Sheet:
    """One row a deployment."""
    return Sheet(
        f"{result.model} on {result.chip} under {result.stack}: {result.isl:,} tokens in, {result.osl:,} out",
        _HEADER,
        [_row(point) for point in result.points],
        [
            f"{result.tried:,} deployments fit into the chips' memory, {result.refused:,} do not. Shown are those that "
            "no other one beats in tokens a second for a user and for a chip; all numbers are of tokens of answers.",
            *([] if result.price is None else [f"Dollars are by {result.price}."]),
            f"Grade: {result.grade}.",
            *result.notes,
        ],
    )


def _row(point: ServingPoint) -> list[str]:
    return [
        f"{point.tokens_per_s_per_user:.0f}",
        f"{point.tokens_per_s_per_chip:,.0f}",
        str(point.chips),
        str(point.split),
        f"{point.requests:,}",
        f"{point.tpot_ms:.1f}",
        f"{point.low_tpot_ms:.1f} to {point.high_tpot_ms:.1f}",
        f"{point.ttft_ms:,.0f}",
        "-" if point.usd_per_mtok is None else f"{point.usd_per_mtok:.2f}",
        "-" if point.joules_per_token is None else f"{point.joules_per_token:.2f}",
        f"{point.held_gb:.0f}",
    ]
