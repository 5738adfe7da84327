"""Regression tests of kernels: compile a suite and compare, compare compilers, time revisions, read the history."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from moe_codesign.compiler.build import Progress
from moe_codesign.errors import UserError
from moe_codesign.files import check_folder, replace_file
from moe_codesign.regression.history import Line, lines
from moe_codesign.regression.run import RegressionResult, VersionColumn, regress_suite, version_matrix
from moe_codesign.regression.suite import Suite, load_suite
from moe_codesign.regression.timed import TimedResult, time_suite
from moe_codesign.regression.verdict import MARGIN
from moe_codesign.regression.versions import parse_environments
from moe_codesign.storage import DEFAULT_STORAGE
from moe_codesign.storage.database import Database, shown
from moe_codesign.storage.regressions import RegressionRun, Regressions


def regress(
    suite: str | Path,
    *,
    update: bool = False,
    storage: str = DEFAULT_STORAGE,
    jobs: int = 1,
    compiling: Progress | None = None,
) -> RegressionResult:
    """Compile the kernels of a suite and compare them with its committed facts.

    Args:
        suite: the suite's TOML file; its facts lie beside it (``NAME.facts.json``).
        update: write those facts anew.
        storage: URL of the database, which keeps every run.
        jobs: compiler processes.
        compiling: called with how many compiles are done, and of how many.

    Raises:
        UserError: no such suite, no baseline, or a name in it that does not exist.
    """
    with Database(storage) as database:
        return regress_suite(load_suite(suite), Regressions(database), update=update, jobs=jobs, progress=compiling)


def regress_against(
    suite: str | Path,
    revision: str,
    *,
    seconds: float = 2.0,
    margin: float = MARGIN,
    report: Callable[[str], None] | None = None,
) -> list[TimedResult]:
    """Time the ``[[timed]]`` cases of a suite on this machine, the working tree beside another git revision.

    Args:
        suite: the suite's TOML file.
        revision: a commit, branch or tag.
        seconds: how long to time each pair of processes.
        margin: how much slower is a regression; 0.03 is 3 %.
        report: called with the line of each result as it comes.

    Raises:
        UserError: no such suite or revision; nothing to time.
    """
    return time_suite(load_suite(suite), revision, seconds=seconds, margin=margin, report=report)


@dataclass(frozen=True)
class VersionMatrix:
    """A suite compiled by several versions of the compilers; every column is compared with the first."""

    suite: Suite
    columns: Sequence[VersionColumn]


def regress_versions(
    suite: str | Path,
    versions: str,
    *,
    jobs: int = 1,
    out: str | Path | None = None,
    compiling: Progress | None = None,
) -> VersionMatrix:
    """Compile a suite under several versions of the compilers, each in an environment of its own.

    Args:
        suite: the suite's TOML file.
        versions: the packages of each environment, as ``triton==3.6.0,jax==0.10.1+libtpu==0.0.51``.
        jobs: compiler processes.
        out: write a Markdown page there.
        compiling: called with how many environments are done, and of how many.

    Raises:
        UserError: no such suite, or an environment that cannot be made.
    """
    from moe_codesign.reports.markdown import matrix_markdown

    found, environments = load_suite(suite), parse_environments(versions)
    if out is not None:
        check_folder(Path(out).parent)
    columns = version_matrix(found, environments, jobs=jobs, progress=compiling)
    if out is not None:
        replace_file(Path(out), matrix_markdown(found.name, columns).encode())
    return VersionMatrix(found, columns)


@dataclass(frozen=True)
class RegressionHistory:
    """The stored runs of a suite, oldest first, what each kernel and chip cost in them, and the page that shows it."""

    suite: Suite
    runs: Sequence[RegressionRun]
    lines: Sequence[Line]
    page: Path


def regress_history(
    suite: str | Path, *, storage: str = DEFAULT_STORAGE, out: str | Path | None = None
) -> RegressionHistory:
    """Read the stored runs of a suite, and draw them as an HTML page.

    Args:
        suite: the suite's TOML file.
        storage: URL of the database that keeps the runs.
        out: the HTML file; default ``results/runs/SUITE-history.html``.

    Raises:
        UserError: no such suite, or no run of it is stored.
    """
    from moe_codesign.reports.html.history import write_history

    found = load_suite(suite)
    with Database(storage) as database:
        runs = Regressions(database).of(found.name)
    if not runs:
        raise UserError(f"no stored runs of {found.name} in {shown(storage)}", fix="run `moe-codesign regress` first")
    page = Path(out) if out is not None else Path("results/runs") / f"{found.name}-history.html"
    check_folder(page.parent)
    every = lines(runs)
    write_history(page, found.name, runs, every)
    return RegressionHistory(found, runs, every, page)
