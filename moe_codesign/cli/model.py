"""The command ``moe-codesign model``."""

import click

from moe_codesign.cli.options import JSON, console, emit


@click.command()
@click.argument("model")
@JSON
def model(model: str, as_json: bool) -> None:
    """Show the shape of MODEL (a catalogue name or a config.json) as it is read, and from which keys.

    \b
    Example: moe-codesign model Qwen/Qwen3-30B-A3B
             moe-codesign model path/to/config.json --json
    """
    import moe_codesign as mc

    found = mc.model(model)
    if as_json:
        emit(found.to_dict())
    else:
        from moe_codesign.reports.terminal.model import print_model

        print_model(console(), found)
