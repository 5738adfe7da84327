"""The command ``moe-codesign calibrate``."""

from pathlib import Path

import click

from moe_codesign.cli.options import CHIP, DTYPE, JOBS, JSON, emit
from moe_codesign.domain.routing import DEFAULT_ROUTING_TEXT
from moe_codesign.errors import UserError


@click.command()
@CHIP
@click.option("--stack", required=True, help="Whose layer was timed: vllm, sglang, or ours.")
@DTYPE
@click.option(
    "--from", "source", default="aiconfigurator", show_default=True,
    help="aiconfigurator (the installed package aiconfigurator-core), or a table with the columns of predict and "
    "latency_us; for --stack ours, the table that benchmarks/gpu/tiles.py writes.",
)  # fmt: skip
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder to write to (default: your own, which predict reads first)."
)
@JOBS
@JSON
def calibrate(chip: str, stack: str, dtype: str, source: str, out: Path | None, jobs: int, as_json: bool) -> None:
    """Fit the cost model of a chip under a software stack to measured times.

    \b
    Example: moe-codesign calibrate --chip h100_sxm --stack vllm --from my_times.csv
    """
    import moe_codesign as mc

    if stack == "ours":
        if source == "aiconfigurator":
            raise UserError("aiconfigurator has no times of our kernels", fix="give --from FILE, a table of races")
        raced, path = mc.calibrate_ours(chip, source, jobs=jobs, out=out)
        if as_json:
            emit({"path": str(path), **raced.model_dump()})
            return
        click.echo(
            f"{path}: {raced.rows} tiles of {raced.races} races ({', '.join(raced.log_width)}) fitted; on shapes left "
            f"out: error {raced.error:.1%}, loss of the tile named best {raced.regret:.1%} (physics alone "
            f"{raced.physics_error:.1%}, {raced.physics_regret:.1%}); 90 % lie within "
            + ", ".join(f"{width:.1%} ({dtype})" for dtype, width in raced.log_width.items())
        )
        _say_routing(raced.unnamed_routing)
        return
    fitted, path = mc.calibrate(chip, stack, dtype=dtype, source=source, out=out)
    file = fitted.file
    if as_json:
        emit({"path": str(path), **file.model_dump()})
        return
    left_out = "; ".join(f"{count} {reason}" for reason, count in file.left_out.items()) or "none"
    click.echo(f"{path}: {file.rows} rows of {file.shapes} shapes fitted, left out: {left_out}")
    _say_routing(file.unnamed_routing)
    if (judged := file.held_out) is not None:
        click.echo(
            f"on {judged.rows} rows of {judged.shapes} shapes that it has not seen: error {judged.mape:.1f} % mean, "
            f"{judged.median:.1f} % median, {judged.p90:.1f} % 90th percentile (physics alone "
            f"{judged.physics_mape:.1f} %, {judged.physics_median:.1f} %); 90 % intervals hold "
            f"{judged.interval_coverage:.0f} %"
        )
    else:
        click.echo("no shapes were held out: too few rows or shapes")


def _say_routing(unnamed: int) -> None:
    """One line where rows name no routing: a time depends on it, and the default was taken for theirs."""
    if unnamed:
        click.echo(
            f"{unnamed} rows name no routing and were read as {DEFAULT_ROUTING_TEXT}; a column routing says another"
        )
