"""The command ``moe-codesign lock-in``."""

import functools
from typing import Any

import click

from moe_codesign.cli.across import across_options, answer_across
from moe_codesign.cli.options import Names


@click.command("lock-in")
@click.argument("space")
@click.option("--chips", type=Names(), help="Chips, overriding the space file.")
@across_options
def lock_in(space: str, as_json: bool, **asked: Any) -> None:
    """Show what it costs to run the shape of SPACE that is best for one chip on another.

    Each chip runs every shape with its own best tiles; a cell is over that chip's own best shape.

    \b
    Example: moe-codesign lock-in quickstart --chips h100_sxm,b200,tpu_v6e
    """
    import moe_codesign as mc
    from moe_codesign.reports.terminal.lock_in import print_lock_in

    answer_across(functools.partial(mc.lock_in, space, **asked), print_lock_in, as_json=as_json)
