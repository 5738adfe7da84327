"""A model as it was read, for a terminal."""

from rich.console import Console
from rich.table import Table

from moe_codesign.models.read_model import FIELDS, ReadModel


def print_model(console: Console, model: ReadModel) -> None:
    """A line for each field, with its value and the key that it came from; below stand notes."""
    table = Table(title=f"{model.shape.name}: {model.shape.label()}", title_justify="left")
    for column in ("field", "value", "from"):
        table.add_column(column, justify="right" if column == "value" else "left", overflow="fold")
    for name in FIELDS:
        value = getattr(model.shape, name)
        if name in ("moe_latent_size", "zero_expert_num") and not value:
            continue
        shown = str(value).lower() if isinstance(value, bool) else str(value)
        table.add_row(name, shown, model.sources.get(name, "-"))
    table.add_row("dtype", model.dtype or "-", model.sources.get("dtype", "-"))
    console.print(table)
    for note in model.notes:
        console.print(f"note: {note}")
