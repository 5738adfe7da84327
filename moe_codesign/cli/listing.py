"""The command ``moe-codesign list``."""

import click

from moe_codesign.cli.options import JSON, STORAGE, console, emit


@click.command("list")
@click.argument("what", type=click.Choice(["chips", "models", "kernels", "spaces", "studies"]))
@STORAGE
@JSON
def list_(what: str, storage: str, as_json: bool) -> None:
    """List the chips, models, kernels or spaces that come with the project, or the stored studies.

    \b
    Example: moe-codesign list chips
    """
    from moe_codesign.api import listing

    rows = listing.rows(what, storage)
    if as_json:
        emit(rows)
    elif what == "chips":
        from moe_codesign.reports.terminal.chips import print_chips

        print_chips(console(), rows)
    elif rows:
        from moe_codesign.reports.text import print_rows

        print_rows(console(), what, rows)
    else:
        click.echo(f"no {what}")
