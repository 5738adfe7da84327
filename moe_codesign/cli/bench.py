"""The command ``moe-codesign bench``."""

import sys

import click

from moe_codesign.cli.options import DTYPE_OF_MODEL, EP_HELP, JSON, ROUTING, TP, Fields, Numbers, console, emit


@click.command()
@click.option(
    "--device",
    default="cpu",
    show_default=True,
    help="A device of this machine: cpu, cuda, tpu, or the catalogue chip that it is.",
)
@click.option(
    "--model", default="Qwen3-30B-A3B", show_default=True, help="A model by catalogue name, or a config.json."
)
@click.option(
    "--tokens", type=Numbers(), default="8,64", show_default=True, help="Batch sizes: tokens over all ranks together."
)
@click.option("--tile", "tiles", type=Fields(), multiple=True, help="A tile to race; may be given again.")
@DTYPE_OF_MODEL
@ROUTING
@TP
@click.option("--ep", type=click.IntRange(1), default=16, show_default=True, help=EP_HELP)
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the data and of the routing."
)
@click.option(
    "--seconds", type=click.FloatRange(0.01), default=1.0, show_default=True, help="How long each tile is timed."
)
@JSON
def bench(
    device: str,
    model: str,
    tokens: list[int],
    tiles: tuple[dict[str, int | bool], ...],
    dtype: str | None,
    routing: str,
    tp: int,
    ep: int,
    seed: int,
    seconds: float,
    as_json: bool,
) -> None:
    """Launch, verify and time a layer on a device of this machine.

    \b
    Example: moe-codesign bench --tokens 8 --tile tile_m=16,tile_k=2048,tile_n=1024
    """
    import moe_codesign as mc

    read = mc.model(model)
    rows = mc.bench(
        read,
        device=device,
        tokens=tokens,
        tiles=tiles,
        dtype=dtype,
        routing=routing,
        tp=tp,
        ep=ep,
        seed=seed,
        seconds=seconds,
    )
    if as_json:
        emit(rows)
    else:
        from moe_codesign.api.bench import bench_dtype
        from moe_codesign.reports.terminal.bench import print_bench

        text = dtype or bench_dtype(read, device).text
        print_bench(console(), f"{read.shape.name}, {text}, ep {ep}, tp {tp}, {routing} routing", rows)
    if any(row.timing is None or row.reason is not None for row in rows):
        sys.exit(1)
