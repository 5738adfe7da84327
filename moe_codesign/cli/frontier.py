"""The command ``moe-codesign frontier``."""

import click

from moe_codesign.cli.options import CHIPS, JSON, console, emit_typed


@click.command("frontier")
@click.argument("model")
@CHIPS
@click.option("--isl", type=click.IntRange(1), default=1024, show_default=True, help="Tokens of a prompt.")
@click.option("--osl", type=click.IntRange(1), default=1024, show_default=True, help="Tokens of an answer.")
@click.option(
    "--stack",
    type=click.Choice(["trtllm", "sglang", "vllm"]),
    default="sglang",
    show_default=True,
    help="Whose software serves it.",
)
@click.option(
    "--dtype",
    type=click.Choice(["bfloat16", "fp8", "fp8_block", "nvfp4"]),
    help="Type of experts and dense parts; default the model's own.",
)
@click.option(
    "--most-chips",
    type=click.IntRange(1),
    default=8,
    show_default=True,
    help="Chips of one copy of the model, within one scale-up domain.",
)
@JSON
def frontier(
    model: str, chips: list[str], isl: int, osl: int, stack: str, dtype: str | None, most_chips: int, as_json: bool
) -> None:
    """Show tokens a second for a user against tokens a second for a chip, of a whole MODEL served on each chip.

    \b
    Example: moe-codesign frontier DeepSeek-V3 --chips h200_sxm,b200 --isl 1024 --osl 1024
    """
    import moe_codesign as mc

    results = mc.frontier(
        model, chips, isl=isl, osl=osl, stack=stack, dtype=dtype, most_chips=most_chips
    )  # fmt: skip
    if as_json:
        emit_typed(results)
    else:
        from moe_codesign.reports.terminal.frontier import print_frontier

        for result in results:
            print_frontier(console(), result)
