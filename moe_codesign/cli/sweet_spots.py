"""The command ``moe-codesign sweet-spots``."""

from typing import TYPE_CHECKING

import click

from moe_codesign.cli.options import (
    CHIPS,
    DTYPE_OF_MODEL,
    EP,
    JOBS,
    JSON,
    RECOMPILE,
    ROUTING,
    TP,
    console,
    emit_typed,
    progress,
)

if TYPE_CHECKING:
    from moe_codesign.answers.sweet_spots import SweptField


@click.command("sweet-spots")
@click.argument("model")
@CHIPS
@click.option(
    "--field",
    type=click.Choice(["moe_intermediate_size", "num_experts", "num_experts_per_tok", "num_tokens"]),
    default="moe_intermediate_size",
    show_default=True,
    help="What grows; everything else is the model's.",
)
@click.option("--low", type=click.IntRange(1), required=True, help="Its least value.")
@click.option("--high", type=click.IntRange(1), required=True, help="Its greatest value.")
@click.option("--step", type=click.IntRange(1), default=64, show_default=True, help="From one value to the next.")
@click.option(
    "--tokens",
    type=click.IntRange(1),
    default=4096,
    show_default=True,
    help="Tokens of the batch, over all ranks together.",
)
@DTYPE_OF_MODEL
@ROUTING
@TP
@EP
@JOBS
@RECOMPILE
@JSON
def sweet_spots(
    model: str,
    chips: list[str],
    field: "SweptField",
    low: int,
    high: int,
    step: int,
    tokens: int,
    dtype: str | None,
    routing: str,
    tp: int,
    ep: int,
    jobs: int,
    recompile: bool,
    as_json: bool,
) -> None:
    """Show time and cost of MODEL as one of its sizes grows, and name the edges that the time runs over.

    \b
    Example: moe-codesign sweet-spots DeepSeek-V3 --chips h100_sxm --low 1024 --high 3072 --step 128
    """
    import moe_codesign as mc

    with progress() as bar:
        results = mc.sweet_spots(
            model,
            chips,
            field=field,
            low=low,
            high=high,
            step=step,
            tokens=tokens,
            dtype=dtype,
            routing=routing,
            tp=tp,
            ep=ep,
            jobs=jobs,
            recompile=recompile,
            compiling=bar("compile"),
        )
    if as_json:
        emit_typed(results)
    else:
        from moe_codesign.reports.terminal.sweet_spots import print_sweet_spots

        for result in results:
            print_sweet_spots(console(), result)
