"""The regression test of kernels."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from moe_codesign.cli.options import JOBS, JSON, console, emit, progress
from moe_codesign.errors import UserError
from moe_codesign.storage import DEFAULT_STORAGE

if TYPE_CHECKING:
    from moe_codesign.regression.suite import Suite


@click.command()
@click.argument("baseline", type=click.Path(path_type=Path))
@click.option("--update", is_flag=True, help="Rewrite the baseline with what the compilers make now; says what moved.")
@click.option("--against", metavar="REV", help="Time the suite's [[timed]] cases here against a git revision.")
@click.option("--with", "with_", metavar="V,V,..", help="Compile under several versions: triton==3.6.0,triton==3.7.1.")
@click.option("--history", is_flag=True, help="Draw the stored runs, a line a kernel and chip; compiles nothing.")
@click.option("--out", type=click.Path(path_type=Path), help="For --with a Markdown page, for --history an HTML file.")
@click.option(
    "--seconds", type=click.FloatRange(0.1), default=2.0, show_default=True, help="Of timing a pair of processes."
)
@click.option("--strict", is_flag=True, help="A timed case that stays unclear fails too.")
@click.option("--storage", default=DEFAULT_STORAGE, show_default=True, help="Database URL; keeps every run.")
@JOBS
@JSON
def regress(
    baseline: Path,
    update: bool,
    against: str | None,
    with_: str | None,
    history: bool,
    out: Path | None,
    seconds: float,
    strict: bool,
    storage: str,
    jobs: int,
    as_json: bool,
) -> None:
    """Compile a suite's kernels for its chips and compare them with its committed BASELINE; exit 1 if one is worse.

    BASELINE is the suite's TOML file; its facts lie beside it (NAME.facts.json).

    \b
    Example: moe-codesign regress benchmarks/baselines/default.toml
             moe-codesign regress benchmarks/baselines/default.toml --with triton==3.6.0,triton==3.7.1 --out versions.md
             moe-codesign regress benchmarks/baselines/host.toml --against HEAD~1
    """
    from moe_codesign.regression.suite import load_suite

    if sum((update, against is not None, with_ is not None, history)) > 1:
        raise UserError("--update, --against, --with and --history exclude each other", fix="give one of them")
    if out is not None and with_ is None and not history:
        raise UserError("--out", value=str(out), fix="it goes with --with or --history")
    suite = load_suite(baseline)
    if history:
        failed = _history(suite.name, storage, out, as_json)
    elif with_ is not None:
        failed = _versions(suite, with_, out, jobs, as_json)
    elif against is not None:
        failed = _timed(suite, against, seconds, strict, as_json)
    else:
        failed = _compiled(baseline, storage, update, jobs, as_json)
    if failed:
        sys.exit(1)


def _compiled(path: Path, storage: str, update: bool, jobs: int, as_json: bool) -> bool:
    import moe_codesign as mc
    from moe_codesign.reports.terminal.regression import regression_lines

    with progress() as bar:
        result = mc.regress(path, update=update, storage=storage, jobs=jobs, compiling=bar("compile"))
    if as_json:
        emit({"suite": result.suite.name, "failed": result.failed, "observed": result.observed,
              "reasons": [[*place, reason] for place, reason in result.reasons.items()],
              "comparison": result.comparison})  # fmt: skip
    else:
        for line in regression_lines(result):
            click.echo(line)
    return result.failed


def _timed(suite: "Suite", against: str, seconds: float, strict: bool, as_json: bool) -> bool:
    from moe_codesign.regression.timed import time_suite

    found = time_suite(suite, against, seconds=seconds, report=None if as_json else click.echo)
    if as_json:
        emit(found)
    unclear = any(one.verdict is not None and one.verdict.word == "unclear" for one in found)
    return any(one.failed for one in found) or (strict and unclear)


def _versions(suite: "Suite", text: str, out: Path | None, jobs: int, as_json: bool) -> bool:
    from moe_codesign.regression.run import version_matrix
    from moe_codesign.regression.versions import parse_environments
    from moe_codesign.reports.markdown import matrix_markdown
    from moe_codesign.reports.terminal.regression import print_matrix

    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
    with progress() as bar:
        columns = version_matrix(suite, parse_environments(text), jobs=jobs, progress=bar("versions"))
    if out is not None:
        out.write_text(matrix_markdown(suite.name, columns))
    if as_json:
        emit([{"version": c.name, "comparison": c.comparison, "stale": c.stale} for c in columns])
    else:
        print_matrix(console(), columns)
        if out is not None:
            click.echo(f"page: {out}")
    return False


def _history(name: str, storage: str, out: Path | None, as_json: bool) -> bool:
    from moe_codesign.regression.history import lines
    from moe_codesign.reports.html.history import write_history
    from moe_codesign.reports.terminal.regression import print_history
    from moe_codesign.storage.studies import Store

    runs = Store(storage).regressions(name)
    if not runs:
        raise UserError(f"no stored runs of {name} in {storage}", fix="run `moe-codesign regress` first")
    path = out or Path("results/runs") / f"{name}-history.html"
    write_history(path, name, runs)
    if as_json:
        emit({"runs": len(runs), "html": str(path), "lines": lines(runs)})
    else:
        print_history(console(), name, runs)
        click.echo(f"html: {path}")
    return False
