"""A lock-in matrix, for a terminal."""

from rich.console import Console

from moe_codesign.answers.lock_in import LockIn, LockInCell
from moe_codesign.domain.failure import Failure
from moe_codesign.reports.sheet import Sheet, cost_text, print_sheet, ratio_text


def print_lock_in(console: Console, result: LockIn) -> None:
    """The matrix, then each chip's own best shape."""
    for sheet in lock_in_sheets(result):
        print_sheet(console, sheet)


def lock_in_sheets(result: LockIn) -> list[Sheet]:
    """The matrix, and the shapes that it is of."""
    chips = list(result.best)
    refused = [
        f"{one.best_for}'s best on {one.run_on}: {one.cost}" for one in result.cells if isinstance(one.cost, Failure)
    ]
    matrix = Sheet(
        f"{result.space}, {result.goal}: the best shape for a row's chip, run on a column's, over that one's own best",
        ["best for", *(f"on {chip}" for chip in chips)],
        [[row, *(_text(result.cell(row, chip)) for chip in chips)] for row in chips],
        [
            f"Costs are {result.goal}, each chip with its own best tiles. In brackets is the interval of the ratio; ~ "
            "marks a ratio that is within error of 1.",
            *refused,
            *result.notes,
        ],
    )
    rows = []
    for chip, best in result.best.items():
        reference = result.reference_costs[chip]
        beside = "-" if isinstance(reference, Failure) else f"{reference.value / best.value:.2f}x"
        cost = cost_text(best.value, result.unit)
        tiles = "; ".join(f"{workload}: {text}" for workload, text in best.tiles.items()) or "-"
        feasible = f"{result.feasible[chip]:,} of {result.points:,}"
        rows.append([chip, best.shape.label(), cost, best.grade, beside, feasible, tiles])
    return [
        matrix,
        Sheet(
            f"{result.space}, {result.goal}: the best shape of each chip",
            ["chip", "shape", "cost", "grade", f"gain over {result.reference}", "shapes timed", "tiles"],
            rows,
            [f"The gain is over {result.reference} with its best tiles on that chip: what the shape alone gains."],
        ),
    ]


def _text(cell: LockInCell) -> str:
    if isinstance(cell.cost, Failure):
        return f"no: {cell.cost.kind}"
    assert cell.over_own_best is not None, "a cost has a ratio"
    return ratio_text(cell.over_own_best)
