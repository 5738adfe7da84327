"""The table of a search, for a terminal."""

from rich.console import Console
from rich.table import Table

from moe_codesign.answers.frontier_rows import pair_notes, report_rows, thinned
from moe_codesign.answers.importances import importance_notes
from moe_codesign.answers.money import cost_notes
from moe_codesign.answers.quality_notes import quality_notes
from moe_codesign.answers.recommendation import recommendations
from moe_codesign.errors import printable
from moe_codesign.reports.text import pair_cells
from moe_codesign.reports.tried import tried_text
from moe_codesign.study.runner import SearchResult


def print_search(console: Console, result: SearchResult, *, per_chip: int = 4) -> None:
    """What to take on each chip, the best pairs of its frontier, then what was tried."""
    recommended = recommendations(result)
    for one in recommended.values():
        if one is not None:
            console.print(printable(str(one)), highlight=False, soft_wrap=True)
    every = report_rows(result)
    rows, notes = [row for row in every if row.on_frontier], pair_notes(every, result.reference)
    table = Table(
        title=f"{printable(result.study)}: pairs on each chip's frontier", title_justify="left", show_lines=False
    )
    for column in ("chip", "shape", "workload", "found by", "tiles: GEMM 1 | GEMM 2"):
        table.add_column(column, overflow="fold")
    for column in ("time", "interval", "grade", "of peak", "limiter", "quality", "gain"):
        table.add_column(column, justify="right", no_wrap=True)
    left_out: list[str] = []
    for chip in (chip.name for chip in result.space.chips):
        of_chip = [row for row in rows if row.pair.chip == chip]
        one = recommended[chip]
        kept, alike = thinned(of_chip, per_chip, None if one is None else (one.mode, one.trial))
        for trial in kept:
            for row in of_chip:
                if (row.mode, row.trial) == trial:
                    table.add_row(chip, *pair_cells(row, notes))
        table.add_section()
        if text := _not_shown(alike, len({(row.mode, row.trial) for row in of_chip}) - len(kept) - alike):
            left_out.append(f"{chip}: not shown: {text}")
    console.print(table)
    for text in left_out:
        console.print(f"{text}; --json has all of them", highlight=False, soft_wrap=True)
    console.print(
        f"gain: {result.space.reference} with its default tile over this pair. Times are one layer's; in brackets is "
        "what other scaling laws say of the quality."
    )
    costs = cost_notes(result.space.chips, [objective.metric.needs for objective in result.space.objectives])
    for note in (*quality_notes(result), *costs, *result.notes):
        console.print(note, highlight=False, soft_wrap=True)
    for note in importance_notes(result):
        console.print(note, highlight=False, soft_wrap=True)
    for number, pair_note in enumerate(notes, 1):
        console.print(f"[{number}] {pair_note}", highlight=False, soft_wrap=True)
    for chip in (chip.name for chip in result.space.chips):
        console.print(f"{chip}: {tried_text(result, chip)}")


def _not_shown(alike: int, further: int) -> str:
    """How many pairs of shape and tiles of a frontier a table leaves out, and why; empty where it shows all."""
    texts = [f"{alike:,} more {'pair' if alike == 1 else 'pairs'} within error of these"] if alike else []
    texts += (
        [f"{further:,} more {'pair' if further == 1 else 'pairs'} that differ by more than error"] if further else []
    )
    return ", ".join(texts)
