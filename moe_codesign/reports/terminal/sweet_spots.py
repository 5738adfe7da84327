"""Time and edges of a size that grows, for a terminal."""

from collections.abc import Iterator

from rich.console import Console

from moe_codesign.answers.sweet_spots import Edge, SweetSpots, best_per_unit
from moe_codesign.reports.sheet import Sheet, print_sheet
from moe_codesign.reports.text import interval_text, time_text


def print_sweet_spots(console: Console, result: SweetSpots) -> None:
    """The points with their times, and the edges between them."""
    print_sheet(console, sweet_spots_sheet(result))


def sweet_spots_sheet(result: SweetSpots) -> Sheet:
    """The points that have a time, each with the edge behind it."""
    workload = result.workload
    tokens = "" if result.field == "num_tokens" else f", {workload.num_tokens} tokens"
    split = "".join(f", {name} {n}" for name, n in (("tp", workload.tp), ("ep", workload.ep)) if n > 1)
    priced = any(point.usd_per_mtok is not None for point in result.points)
    rows = []
    for point in result.points:
        if point.timing is None:
            continue
        us = point.timing.latency_us
        rows.append(
            [
                f"{'* ' if point.value in result.spots else ''}{point.value}",
                time_text(us),
                interval_text(point.timing),
                point.timing.grade,
                f"{point.us_per_unit:.4g} us",
                *([f"{point.usd_per_mtok:.3g}"] if priced else []),
                *(f"{point.losses_us.get(name, 0.0) / us:.1%}" for name in ("padding", "waves")),
                point.tiles or "-",
                "; ".join(_text(edge) for edge in result.edges if edge.last == point.value) or "-",
            ]
        )
    return Sheet(
        f"{result.model} on {result.chip}: one layer as {result.field} grows{tokens}{split}, {workload.dtype}, "
        f"{workload.routing} routing",
        [
            result.field, "time", "interval", "grade", f"time / {result.field}", *(["$/Mtok"] if priced else []),
            "padding", "waves", "tiles", "edge before the next value",
        ],
        rows,
        list(_remarks(result)),
    )  # fmt: skip


def _text(edge: Edge) -> str:
    lost = f" (+{edge.lost:.1%})" if edge.lost_us > 0 else ""
    return f"{' and '.join(edge.kinds)}{lost}: {', '.join(edge.what)}"


def _remarks(result: SweetSpots) -> Iterator[str]:
    if result.spots:
        yield (
            f"* sweet spots: {', '.join(map(str, result.spots))}; the step past each costs the share of the time that "
            "stands in brackets more than growing explains."
        )
    if (best := best_per_unit(result.points)) is not None:
        yield f"Least time for its size: {result.field} {best.value}."
    refused: dict[str, list[int]] = {}
    for point in result.points:
        if point.error is not None:
            refused.setdefault(point.error.kind, []).append(point.value)
    for kind, values in refused.items():
        first = next(point.error for point in result.points if point.error is not None and point.error.kind == kind)
        some = ", ".join(map(str, values[:6])) + (f" and {len(values) - 6} more" if len(values) > 6 else "")
        yield f"No time ({kind}) at {some}; the first: {first.text}"
    yield from (f"{result.chip}: {note}" for note in result.notes)
