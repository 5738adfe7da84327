"""A model as it was read, for a terminal."""

from rich.console import Console
from rich.table import Table

from moe_codesign.domain.model_shape import LayerGroup, ModelShape
from moe_codesign.domain.shape import MoEShape
from moe_codesign.models.read_model import FIELDS, ReadModel

_CONTEXT = 8192
"""Tokens of the sequence whose cache is shown."""


def print_model(console: Console, model: ReadModel) -> None:
    """A line for each field, with its value and the key that it came from; notes; and the whole model around it."""
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
    if model.whole is not None:
        print_whole(console, model.whole, said=model.notes)
    elif model.no_whole:
        console.print(f"the whole model is not shown: {model.no_whole}")


def print_whole(console: Console, model: ModelShape, *, said: tuple[str, ...] = ()) -> None:
    """A whole model: its groups of layers, its parts with their types and sizes, what a sequence keeps, and keys.

    Args:
        console: to print to.
        model: the whole model.
        said: notes that were printed before.
    """
    title = f"{model.name}, whole: {model.num_layers} layers, hidden size {model.hidden_size}"
    console.print(f"{title}, vocabulary {model.vocab_size:,}")
    layers = Table()
    layers.add_column("layers", justify="right")
    for column in ("attention", "feed-forward"):
        layers.add_column(column, overflow="fold")
    for group in model.groups:
        attention = "-" if group.attention is None else f"{group.attention.kind}: {group.attention.label}"
        layers.add_row(str(group.count), attention, _feed_forward(group, model.moe))
    console.print(layers)
    console.print(_parts(model))
    for line in _kept(model):
        console.print(line)
    for note in model.notes:
        if note not in said:
            console.print(f"note: {note}")
    keys = Table(title="keys that it was read from", title_justify="left")
    for column in ("field", "from"):
        keys.add_column(column, overflow="fold")
    for name, key in model.sources.items():
        keys.add_row(name, key)
    console.print(keys)


def _feed_forward(group: LayerGroup, moe: MoEShape | None) -> str:
    parts = []
    if group.dense is not None:
        parts.append(f"dense {group.dense.intermediate_size}" + ("" if group.dense.gated else ", no gate"))
    if group.experts and moe is not None:
        parts.append(f"experts {moe.label()}")
    return " and ".join(parts) or "-"


def _parts(model: ModelShape) -> Table:
    held, active, size = model.parameters(), model.active_parameters(), model.weight_bytes()
    table = Table(title="parameters and bytes of weights", title_justify="left")
    table.add_column("part")
    table.add_column("type")
    for column in ("parameters (B)", "used by a token (B)", "GB"):
        table.add_column(column, justify="right")
    for part, count in held.by_part().items():
        used = active.by_part()[part]
        if count or used:
            dtype = getattr(model.types, part, model.types.rest)
            shown = "that of embedding" if part == "head" and model.tied_embeddings else dtype
            table.add_row(part, shown, _billions(count), _billions(used), f"{size[part] / 1e9:.2f}")
    table.add_section()
    table.add_row("total", "", _billions(held.total), _billions(active.total), f"{sum(size.values()) / 1e9:.2f}")
    return table


def _billions(count: float) -> str:
    return f"{count / 1e9:,.3f}" if count else "0"


def _kept(model: ModelShape) -> list[str]:
    """What one sequence keeps: cache and states."""
    lines = [
        f"KV cache ({model.types.kv_cache}): {model.kv_bytes_per_token():,.0f} bytes for each further token; "
        f"{model.kv_bytes(_CONTEXT) / 1e6:,.1f} MB for a sequence of {_CONTEXT:,} tokens"
    ]
    if state := model.state_bytes():
        lines.append(f"states ({model.types.state}): {state / 1e6:,.1f} MB for a sequence of any length")
    return lines
