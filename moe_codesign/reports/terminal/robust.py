"""One shape for several chips, for a terminal."""

from rich.console import Console

from moe_codesign.answers.robust import Robust
from moe_codesign.reports.sheet import Sheet, cost_text, print_sheet, ratio_text


def print_robust(console: Console, result: Robust) -> None:
    """The shape, and what it costs each chip."""
    print_sheet(console, robust_sheet(result))


def robust_sheet(result: Robust) -> Sheet:
    """What the one shape costs each chip."""
    words = "at worst" if result.by == "worst" else "in the weighted mean"
    beside = "" if result.reference_price is None else f" {result.reference} is {result.reference_price:.3f} {words}."
    return Sheet(
        f"{result.space}, {result.goal}: {result.shape.label()} for all chips",
        ["chip", "weight", "its cost", "own best", "own best shape", "over own best", "grade"],
        [
            [
                one.chip,
                "-" if result.by == "worst" else f"{one.weight:.2f}",
                cost_text(one.cost.value, result.unit),
                cost_text(one.own_best.value, result.unit),
                one.own_best.shape.label(),
                ratio_text(one.over_own_best),
                one.cost.grade,
            ]
            for one in result.chips
        ],
        [
            f"One shape for all costs {result.price:.3f} times a shape for each {words}: the least of "
            f"{result.feasible:,} shapes that may be timed on every chip ({result.points:,} in the space).{beside}",
            f"Costs are {result.goal}, each chip with its own best tiles. ~ marks a ratio that is within error of 1.",
            *result.notes,
        ],
    )
