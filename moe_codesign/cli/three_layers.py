"""The command ``moe-codesign three-layers``."""

import functools
from typing import Any

import click

from moe_codesign.cli.across import across_options, answer_across


@click.command("three-layers")
@click.argument("space")
@click.option("--from", "from_chip", required=True, help="The chip to begin with.")
@click.option("--to", "to_chip", required=True, help="The other chip, whose best shape of the space is the found one.")
@across_options
def three_layers(space: str, as_json: bool, **asked: Any) -> None:
    """Split the gain from one chip to another into chip, tiles and shape of SPACE, and say whether gains multiply.

    \b
    Example: moe-codesign three-layers quickstart --from h100_sxm --to b200
    """
    import moe_codesign as mc
    from moe_codesign.reports.terminal.three_layers import print_three_layers

    answer_across(functools.partial(mc.three_layers, space, **asked), print_three_layers, as_json=as_json)
