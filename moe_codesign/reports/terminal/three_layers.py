"""Three layers of a gain, for a terminal."""

from rich.console import Console

from moe_codesign.answers.three_layers import LAYERS, ThreeLayers
from moe_codesign.reports.sheet import Sheet, cost_text, print_sheet, ratio_text


def print_three_layers(console: Console, result: ThreeLayers) -> None:
    """The gains, alone and in every order."""
    for sheet in three_layers_sheets(result):
        print_sheet(console, sheet)


def three_layers_sheets(result: ThreeLayers) -> list[Sheet]:
    """Gains alone and together, and the gains of each order."""
    words = {
        "chip": f"chip: {result.from_chip} to {result.to_chip}",
        "tiles": "tiles: default to best",
        "shape": f"shape: {result.reference} to {result.found.label()}",
    }
    alone = [[words[layer], ratio_text(gain)] for layer, gain in result.alone.items()]
    start, end = result.corners["start"], result.corners["+".join(LAYERS)]
    gains = Sheet(
        f"{result.space}, {result.goal}: three layers from {result.from_chip} to {result.to_chip}",
        ["what changes, alone", "gain"],
        [
            *alone,
            ["the product of these", ratio_text(result.product)],
            ["all together", ratio_text(result.together)],
            ["product over together", ratio_text(result.product_over_together)],
        ],
        [
            f"Gains are costs before over costs after; costs are {result.goal}, from "
            f"{cost_text(start.value, result.unit)} to {cost_text(end.value, result.unit)}.",
            f"{_verdict(result)} ~ marks what is within error of 1.",
            *result.notes,
        ],
    )
    orders = Sheet(
        f"{result.space}, {result.goal}: one after another, in every order",
        ["order", "first", "second", "third", "product"],
        [
            [
                ", ".join(step.layer for step in order),
                *(f"{step.gain.value:.2f}" for step in order),
                f"{result.together.value:.2f}",
            ]
            for order in result.orders
        ],
    )
    return [gains, orders]


def _verdict(result: ThreeLayers) -> str:
    over = result.product_over_together.value - 1
    if abs(over) < 0.005:
        return "The gains multiply, to half a percent."
    text = f"The product of the three alone is {abs(over):.1%} {'more' if over > 0 else 'less'} than the joint gain"
    if result.product_over_together.is_tie:
        return f"{text}, which is within error of equal: the estimates neither show nor exclude that gains multiply."
    return f"{text}: the gains do not multiply."
