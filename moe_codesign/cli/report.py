"""The command ``moe-codesign report``."""

from pathlib import Path

import click

from moe_codesign.cli.options import JSON, STORAGE, console, emit


@click.command()
@click.argument("study")
@STORAGE
@click.option("--out", type=click.Path(path_type=Path), help="HTML file (default: results/runs/STUDY/report.html).")
@JSON
def report(study: str, storage: str, out: Path | None, as_json: bool) -> None:
    """Print a stored study's table and write its HTML report.

    \b
    Example: moe-codesign report quickstart --out report.html
    """
    import moe_codesign as mc
    from moe_codesign.answers.frontier_rows import json_rows
    from moe_codesign.reports.terminal.search import print_search

    path = out or Path("results/runs") / study / "report.html"
    result = mc.load_study(study, storage=storage)
    mc.report(result, out=path)
    if as_json:
        emit({"study": study, "report": str(path), "trials": len(result.asked_for), **json_rows(result)})
    else:
        print_search(console(), result)
        click.echo(f"report: {path}")
