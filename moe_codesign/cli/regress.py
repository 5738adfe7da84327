"""The regression test of kernels."""

import sys
from pathlib import Path

import click

from moe_codesign.cli.options import JOBS, JSON, STORAGE, console, emit, progress
from moe_codesign.errors import UserError


@click.command()
@click.argument("suite", type=click.Path(path_type=Path))
@click.option("--update", is_flag=True, help="Rewrite the baseline with what the compilers make now; says what moved.")
@click.option("--against", metavar="REV", help="Time the suite's [[timed]] cases here against a git revision.")
@click.option("--with", "with_", metavar="V,V,..", help="Compile under several versions: triton==3.6.0,triton==3.7.1.")
@click.option(
    "--history", is_flag=True, help="Show the stored runs, a line for each kernel and chip; compiles nothing."
)
@click.option("--out", type=click.Path(path_type=Path), help="For --with a Markdown page, for --history an HTML file.")
@click.option(
    "--seconds",
    type=click.FloatRange(0.1),
    default=2.0,
    show_default=True,
    help="How long --against times each pair of processes.",
)
@click.option(
    "--margin",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.03,
    show_default=True,
    help="How much slower is a regression for --against: 0.03 is 3 %.",
)
@click.option("--strict", is_flag=True, help="With --against: a timed case that stays unclear fails too.")
@STORAGE
@JOBS
@JSON
def regress(
    suite: Path,
    update: bool,
    against: str | None,
    with_: str | None,
    history: bool,
    out: Path | None,
    seconds: float,
    margin: float,
    strict: bool,
    storage: str,
    jobs: int,
    as_json: bool,
) -> None:
    """Compile a SUITE's kernels for its chips and compare them with its committed baseline; exit 1 if one is worse.

    SUITE is a TOML file; its baseline, the facts of each kernel, lies beside it (NAME.facts.json).

    \b
    Example: moe-codesign regress benchmarks/baselines/default.toml
             moe-codesign regress benchmarks/baselines/default.toml --with triton==3.6.0,triton==3.7.1 --out versions.md
             moe-codesign regress benchmarks/baselines/host.toml --against HEAD~1
    """
    if sum((update, against is not None, with_ is not None, history)) > 1:
        raise UserError("--update, --against, --with and --history exclude each other", fix="give one of them")
    if out is not None and with_ is None and not history:
        raise UserError("--out", value=str(out), fix="it goes with --with or --history")
    failed = False
    if history:
        _history(suite, storage, out, as_json)
    elif with_ is not None:
        _versions(suite, with_, out, jobs, as_json)
    elif against is not None:
        failed = _timed(suite, against, seconds, margin, strict, as_json)
    else:
        failed = _compiled(suite, storage, update, jobs, as_json)
    if failed:
        sys.exit(1)


def _compiled(suite: Path, storage: str, update: bool, jobs: int, as_json: bool) -> bool:
    import moe_codesign as mc
    from moe_codesign.reports.terminal.regression import regression_lines

    with progress() as bar:
        result = mc.regress(suite, update=update, storage=storage, jobs=jobs, compiling=bar("compile"))
    if as_json:
        emit(result.to_json())
    else:
        for line in regression_lines(result):
            click.echo(line)
    return result.failed


def _timed(suite: Path, against: str, seconds: float, margin: float, strict: bool, as_json: bool) -> bool:
    import moe_codesign as mc

    found = mc.regress_against(suite, against, seconds=seconds, margin=margin, report=None if as_json else click.echo)
    if as_json:
        emit(found)
    return any(one.failed or (strict and one.unclear) for one in found)


def _versions(suite: Path, versions: str, out: Path | None, jobs: int, as_json: bool) -> None:
    import moe_codesign as mc
    from moe_codesign.reports.terminal.regression import print_matrix

    with progress() as bar:
        matrix = mc.regress_versions(suite, versions, jobs=jobs, out=out, compiling=bar("versions"))
    if as_json:
        emit([column.to_json() for column in matrix.columns])
        return
    print_matrix(console(), matrix.columns)
    if out is not None:
        click.echo(f"page: {out}")


def _history(suite: Path, storage: str, out: Path | None, as_json: bool) -> None:
    import moe_codesign as mc
    from moe_codesign.reports.terminal.regression import print_history

    found = mc.regress_history(suite, storage=storage, out=out)
    if as_json:
        emit({"runs": len(found.runs), "html": str(found.page), "lines": found.lines})
        return
    print_history(console(), found.suite.name, found.runs, found.lines)
    click.echo(f"html: {found.page}")
