"""The table of an audit, for a terminal."""

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table

from moe_codesign.answers.audit import LOSSES, AuditRow
from moe_codesign.reports.text import interval_text, time_text


def print_audit(console: Console, title: str, rows: Sequence[AuditRow]) -> None:
    """Losses per chip and token count, as shares of the time.

    Below the table stand the reasons why a row has no time, notes on the other rows, and the model's quality.
    """
    names = [n for n in LOSSES if any(row.estimate and row.estimate.losses_us.get(n) for row in rows)]
    table = Table(title=title, title_justify="left")
    for column in ("chip", "tokens", "time", "interval", "grade", "bound", "of bound"):
        table.add_column(column, justify="left" if column == "chip" else "right", no_wrap=True)
    for name in names:
        table.add_column(f"lost: {name}", justify="right")
    table.add_column("tiles: GEMM 1 | GEMM 2", overflow="fold")
    for row in rows:
        if row.estimate is None:
            table.add_row(row.chip, str(row.num_tokens), *["-"] * (5 + len(names)), "see below")
            continue
        timing, losses = row.estimate.timing, row.estimate.losses_us
        table.add_row(
            row.chip,
            str(row.num_tokens),
            time_text(timing.latency_us),
            interval_text(timing),
            timing.grade,
            time_text(timing.bound_us),
            f"{timing.share_of_bound:.0%}",
            *(f"{losses[n] / timing.latency_us:.0%}" if n in losses else "-" for n in names),
            " | ".join(t.label() for t in row.estimate.tiles) or "-",
        )
    console.print(table)
    for line in (*_remarks(rows), *_quality(rows)):
        console.print(line, soft_wrap=True, highlight=False)


def _remarks(rows: Sequence[AuditRow]) -> Iterator[str]:
    """Errors and notes, each once for a chip; with the token counts that it is for unless it is for all of them."""
    tokens: dict[tuple[str, str], list[int]] = {}
    for row in rows:
        notes = row.estimate.notes if row.estimate is not None else ()
        for text in (*notes, *([row.error.text] if row.error is not None else [])):
            tokens.setdefault((row.chip, text), []).append(row.num_tokens)
    for (chip, text), some in tokens.items():
        every = [row.num_tokens for row in rows if row.chip == chip]
        where = "" if some == every else f", {', '.join(map(str, some))} tokens"
        yield f"{chip}{where}: {text}"


def _quality(rows: Sequence[AuditRow]) -> list[str]:
    """The model's quality, once: it does not depend on the chip or the batch."""
    found = rows[0].quality if rows else None
    if found is None:
        return [
            "quality: not judged, as it is a ratio to another model on as many training tokens: give --reference and "
            "--training-tokens"
        ]
    if found.ratio is None:
        own = f"quality: no ratio to {found.reference} by {found.law}: {found.unusable}"
    else:
        own = f"quality: {found.ratio:.3f} of {found.reference}'s by {found.law}"
    others = ", ".join(f"{law} {ratio:.3f}" for law, ratio in found.by_law.items() if law != found.law)
    if others:
        own += f"; {found.low:.3f} to {found.high:.3f} over all laws that have a say (others: {others})"
    outside = [f"outside of {found.law}'s experiments: {one}" for one in found.outside]
    return [own, *outside, *found.notes]
