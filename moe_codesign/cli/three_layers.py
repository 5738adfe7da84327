"""The command ``moe-codesign three-layers``."""

from collections.abc import Callable

import click

from moe_codesign.cli.options import JOBS, JSON, OBJECTIVE, RECOMPILE, SHARES, console, emit_typed, progress


@click.command("three-layers")
@click.argument("space")
@click.option("--from", "from_chip", required=True, help="The chip to begin with.")
@click.option("--to", "to_chip", required=True, help="The other chip, whose best shape of the space is the found one.")
@OBJECTIVE
@SHARES
@JOBS
@RECOMPILE
@JSON
def three_layers(
    space: str,
    from_chip: str,
    to_chip: str,
    objective: str | None,
    shares: dict[str, float] | None,
    jobs: int,
    recompile: bool,
    as_json: bool,
) -> None:
    """Split the gain from one chip to another into chip, tiles and shape of SPACE, and say whether gains multiply.

    \b
    Example: moe-codesign three-layers quickstart --from h100_sxm --to b200
    """
    import moe_codesign as mc

    with progress() as bar:
        bars: dict[str, Callable[[int, int], None]] = {}

        def running(chip: str, done: int, total: int) -> None:
            bars.setdefault(chip, bar(chip))(done, total)

        result = mc.three_layers(
            space,
            from_chip=from_chip,
            to_chip=to_chip,
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
        from moe_codesign.reports.terminal.three_layers import print_three_layers

        print_three_layers(console(), result)
