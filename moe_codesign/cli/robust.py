"""The command ``moe-codesign robust``."""

import functools
from typing import Any

import click

from moe_codesign.cli.across import across_options, answer_across
from moe_codesign.cli.options import Names, Shares


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
@across_options
def robust(space: str, as_json: bool, **asked: Any) -> None:
    """Find one shape of SPACE for several chips, and its price against a shape for each.

    \b
    Example: moe-codesign robust quickstart --chips h100_sxm,b200,tpu_v6e --by worst
    """
    import moe_codesign as mc
    from moe_codesign.reports.terminal.robust import print_robust

    answer_across(functools.partial(mc.robust, space, **asked), print_robust, as_json=as_json)
