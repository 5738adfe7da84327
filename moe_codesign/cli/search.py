"""The command ``moe-codesign search``."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import click

from moe_codesign.cli.options import JSON, RECOMPILE, STORAGE, Names, console, emit, progress


@click.command()
@click.argument("space")
@click.option("--chips", type=Names(), help="Chips to search, overriding the space file.")
@click.option(
    "--trials",
    type=click.IntRange(1),
    help="Sample so many trials over all chips and modes, also of a space small enough to enumerate.",
)
@click.option("--jobs", type=click.IntRange(1), show_default="all cores of the executor", help="Compiler processes.")
@RECOMPILE
@click.option(
    "--executor",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Where tiles are compiled and pairs measured: on this machine, or over a Ray cluster (RAY_ADDRESS).",
)
@STORAGE
@click.option("--study", help="Name of the study (default: the space's). A study of that name is resumed.")
@click.option("--seed", type=click.IntRange(0), help="Random seed, overriding the space file.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the report (default: results/runs/STUDY).")
@JSON
def search(
    space: str,
    chips: list[str] | None,
    trials: int | None,
    jobs: int | None,
    recompile: bool,
    executor: Literal["local", "ray"],
    storage: str,
    study: str | None,
    seed: int | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Search the shape and the tiles together over SPACE.

    SPACE is a TOML file or the name of a space that comes with the project (`moe-codesign list spaces`). The same
    command resumes a search that was interrupted, and on a PostgreSQL server any number of processes, on any machines,
    work on it together.

    \b
    Example: moe-codesign search quickstart --chips h100_sxm,tpu_v6e --trials 100
    """
    import moe_codesign as mc
    from moe_codesign.answers.frontier_rows import json_rows
    from moe_codesign.storage.database import shown

    loaded = mc.load_space(space, chips=chips, seed=seed)
    folder = out or Path("results/runs") / (study or loaded.name)
    with progress() as bar:
        bars: dict[str, Callable[[int, int], None]] = {}

        def running(chip: str, mode: str, done: int, total: int) -> None:
            label = f"{chip} {mode}"
            bars.setdefault(label, bar(label))(done, total)

        result = mc.search(
            loaded,
            trials=trials,
            jobs=jobs,
            recompile=recompile,
            executor=executor,
            storage=storage,
            study=study,
            out=folder,
            compiling=bar("compile"),
            running=running,
        )
    if as_json:
        emit(
            {
                "study": result.study,
                "storage": shown(storage),
                "report": str(folder / "report.html"),
                "trials": len(result.asked_for),
                "polished": {chip: done.kept for chip, done in result.polishes.items()},
                "interrupted": result.interrupted,
                "exact": result.is_exact,
                **json_rows(result),
            }
        )
    else:
        from moe_codesign.reports.terminal.search import print_search

        print_search(console(), result)
        click.echo(f"stored in {shown(storage)}; report: {folder / 'report.html'}")
    if result.interrupted:
        click.echo("interrupted; the same command resumes it", err=True)
        sys.exit(130)
