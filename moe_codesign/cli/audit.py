"""The command ``moe-codesign audit``."""

from typing import TYPE_CHECKING

import click

from moe_codesign.cli.options import (
    CHIPS,
    DTYPE_OF_MODEL,
    EP,
    JOBS,
    JSON,
    LAW,
    RECOMPILE,
    REFERENCE,
    ROUTING,
    TP,
    TRAINING_TOKENS,
    Numbers,
    console,
    emit,
    progress,
)

if TYPE_CHECKING:
    from moe_codesign.models import ReadModel


@click.command()
@click.argument("model")
@CHIPS
@click.option(
    "--tokens",
    type=Numbers(),
    default="1,64,4096",
    show_default=True,
    help="Batch sizes: tokens over all ranks together.",
)
@DTYPE_OF_MODEL
@ROUTING
@TP
@EP
@REFERENCE
@TRAINING_TOKENS
@LAW
@JOBS
@RECOMPILE
@JSON
def audit(
    model: str,
    chips: list[str],
    tokens: list[int],
    dtype: str | None,
    routing: str,
    tp: int,
    ep: int,
    reference: str | None,
    training_tokens: float | None,
    law: str | None,
    jobs: int,
    recompile: bool,
    as_json: bool,
) -> None:
    """Show where MODEL (a catalogue name or a config.json) loses time on each chip.

    \b
    Example: moe-codesign audit DeepSeek-V3 --chips h100_sxm,tpu_v6e --tokens 1,64,4096
    """
    import moe_codesign as mc

    read = mc.model(model)
    with progress() as bar:
        rows = mc.audit(
            read,
            chips,
            tokens=tokens,
            dtype=dtype,
            routing=routing,
            tp=tp,
            ep=ep,
            reference=reference,
            training_tokens=training_tokens,
            law=law,
            jobs=jobs,
            recompile=recompile,
            compiling=bar("compile"),
        )
    if as_json:
        emit(rows)
    else:
        from moe_codesign.reports.terminal.audit import print_audit

        title = (
            f"{read.shape.name}: one layer, {read.shape.label()}, {_dtype_text(read, chips, dtype)}, {routing} routing"
        )
        split = "".join(f", {name} {n}" for name, n in (("tp", tp), ("ep", ep)) if n > 1)
        print_audit(console(), title + split, rows)
        for note in read.notes:
            click.echo(f"note: {note}")


def _dtype_text(read: "ReadModel", chips: list[str], asked: str | None) -> str:
    """The type that the rows are of, and why it was chosen where nobody asked for it."""
    from moe_codesign.chips import load_chips
    from moe_codesign.models.default_dtype import default_dtype

    if asked is not None:
        return asked
    return default_dtype(read, load_chips(chips)).text
