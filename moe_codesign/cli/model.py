"""The command ``moe-codesign model``."""

import click

from moe_codesign.cli.options import JSON, console, emit


@click.command()
@click.argument("model")
@JSON
def model(model: str, as_json: bool) -> None:
    """Show MODEL (a catalogue name or a config.json) as it is read, whole and its experts, and from which keys.

    \b
    Example: moe-codesign model Qwen/Qwen3-30B-A3B
             moe-codesign model path/to/config.json --json
    """
    import moe_codesign as mc
    from moe_codesign.models import NoExpertsError
    from moe_codesign.models.read_model import dense_to_dict
    from moe_codesign.reports.terminal.model import print_model, print_whole

    try:
        found = mc.model(model)
    except NoExpertsError:
        dense = mc.model_shape(model)
        if as_json:
            emit(dense_to_dict(dense))
        else:
            print_whole(console(), dense)
        return
    if as_json:
        emit(found.to_dict())
    else:
        print_model(console(), found)
