"""The command ``moe-codesign robust``."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from moe_codesign.cli.options import (
    JOBS,
    JSON,
    OBJECTIVE,
    RECOMPILE,
    SHARES,
    Names,
    Shares,
    console,
    emit_typed,
    progress,
)

if TYPE_CHECKING:
    from moe_codesign.answers.robust import By


@click.command("robust")
@click.argument("space")
@click.option("--chips", type=Names(), help="Chips, overriding the space file.")
@click.option(
    "--by",
    type=click.Choice(["worst", "weighted"]),
    default="worst",
    show_default=True,
    help="What is made least: the highest of the chips' costs over their own best, or their weighted mean.",
)
@click.option("--weights", type=Shares(), help="Of the chips in that mean, as h100_sxm=3,tpu_v6e=1; 1 where left out.")
@OBJECTIVE
@SHARES
@JOBS
@RECOMPILE
@JSON
def robust(
    space: str,
    chips: list[str] | None,
    by: "By",
    weights: dict[str, float] | None,
    objective: str | None,
    shares: dict[str, float] | None,
    jobs: int,
    recompile: bool,
    as_json: bool,
) -> None:
    """Find one shape of SPACE for several chips, and its price against a shape for each.

    \b
    Example: moe-codesign robust quickstart --chips h100_sxm,b200,tpu_v6e --by worst
    """
    import moe_codesign as mc

    with progress() as bar:
        bars: dict[str, Callable[[int, int], None]] = {}

        def running(chip: str, done: int, total: int) -> None:
            bars.setdefault(chip, bar(chip))(done, total)

        result = mc.robust(
            space,
            chips=chips,
            by=by,
            weights=weights,
            objective=objective,
            shares=shares,
            jobs=jobs,
            recompile=recompile,
            compiling=bar("compile"),
            running=running,
        )
    if as_json:
        emit_typed(result)
    else:
        from moe_codesign.reports.terminal.robust import print_robust

        print_robust(console(), result)
