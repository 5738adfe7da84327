"""The command ``moe-codesign audit``."""

import click

from moe_codesign.cli.options import (
    CHIPS,
    DTYPE,
    EP,
    JOBS,
    JSON,
    RECOMPILE,
    ROUTING,
    TP,
    Numbers,
    console,
    emit,
    progress,
)


@click.command()
@click.argument("model")
@CHIPS
@click.option("--tokens", type=Numbers(), default="1,64,4096", show_default=True, help="Batch sizes, in tokens.")
@DTYPE
@ROUTING
@TP
@EP
@JOBS
@RECOMPILE
@JSON
def audit(
    model: str,
    chips: list[str],
    tokens: list[int],
    dtype: str,
    routing: str,
    tp: int,
    ep: int,
    jobs: int,
    recompile: bool,
    as_json: bool,
) -> None:
    """Show where MODEL (a catalogue name or a config.json) loses time on each chip.

    \b
    Example: moe-codesign audit DeepSeek-V3 --chips h100_sxm,tpu_v6e --tokens 1,64,4096
    """
    import moe_codesign as mc

    shape = mc.find_model(model)
    with progress() as bar:
        rows = mc.audit(
            shape,
            chips,
            tokens=tokens,
            dtype=dtype,
            routing=routing,
            tp=tp,
            ep=ep,
            jobs=jobs,
            recompile=recompile,
            compiling=bar("compile"),
        )
    if as_json:
        emit(rows)
    else:
        from moe_codesign.reports.terminal.audit import print_audit

        split = "".join(f", {name} {n}" for name, n in (("tp", tp), ("ep", ep)) if n > 1)
        print_audit(console(), f"{shape.name}: one layer, {shape.label()}, {dtype}, {routing} routing{split}", rows)
