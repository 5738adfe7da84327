"""By which prices and which power costs and joules are."""

from collections.abc import Sequence

from moe_codesign.chips import Chip
from moe_codesign.domain.metrics import Need


def cost_notes(chips: Sequence[Chip], needs: Sequence[Need | None]) -> list[str]:
    """One line for each chip whose price, or own power, some number is by.

    Args:
        chips: of the numbers, at the space's own prices where it gives some.
        needs: what the numbers' metrics need.
    """
    notes = []
    if "price" in needs:
        prices = [(chip.name, chip.price) for chip in chips]
        notes += [f"costs on {name} are by {price}{_from(price.source)}" for name, price in prices if price is not None]
    if "power" in needs:
        powers = [(chip.name, chip.own_power) for chip in chips]
        notes += [
            f"joules on {name} are by {power.watts:g} W, the space's own{_from(power.source)}"
            for name, power in powers
            if power is not None
        ]
    return notes


def own_notes(chips: Sequence[Chip]) -> list[str]:
    """The lines of those chips alone whose price or power is the space's own."""
    own = [chip for chip in chips if chip.price is not None and chip.price.kind == "space"]
    return [*cost_notes(own, ["price"]), *cost_notes(chips, ["power"])]


def _from(source: str | None) -> str:
    return f" ({source})" if source else ""
