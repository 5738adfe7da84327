"""The command ``moe-codesign lock-in``."""

from collections.abc import Callable

import click

from moe_codesign.cli.options import JOBS, JSON, OBJECTIVE, RECOMPILE, SHARES, Names, console, emit_typed, progress


@click.command("lock-in")
@click.argument("space")
@click.option("--chips", type=Names(), help="Chips, overriding the space file.")
@OBJECTIVE
@SHARES
@JOBS
@RECOMPILE
@JSON
def lock_in(
    space: str,
    chips: list[str] | None,
    objective: str | None,
    shares: dict[str, float] | None,
    jobs: int,
    recompile: bool,
    as_json: bool,
) -> None:
    """Show what it costs to run the shape of SPACE that is best for one chip on another.

    Each chip runs every shape with its own best tiles; a cell is over that chip's own best shape.

    \b
    Example: moe-codesign lock-in quickstart --chips h100_sxm,b200,tpu_v6e
    """
    import moe_codesign as mc

    with progress() as bar:
        bars: dict[str, Callable[[int, int], None]] = {}

        def running(chip: str, done: int, total: int) -> None:
            bars.setdefault(chip, bar(chip))(done, total)

        result = mc.lock_in(
            space,
            chips=chips,
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
        from moe_codesign.reports.terminal.lock_in import print_lock_in

        print_lock_in(console(), result)
