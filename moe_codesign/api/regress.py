"""Compile a suite of kernels and compare with its committed facts."""

from pathlib import Path

from moe_codesign.compiler.build import Progress
from moe_codesign.regression.run import RegressionResult, regress_suite
from moe_codesign.regression.suite import load_suite
from moe_codesign.storage import DEFAULT_STORAGE
from moe_codesign.storage.studies import Store


def regress(
    baseline: str | Path,
    *,
    update: bool = False,
    storage: str = DEFAULT_STORAGE,
    jobs: int = 1,
    compiling: Progress | None = None,
) -> RegressionResult:
    """Compile the kernels of a suite file and hold them against its committed facts.

    Args:
        baseline: the suite's TOML file. update: write its facts anew.
        storage: database URL, which keeps every run.

    Raises:
        UserError: no such suite, no baseline, or a name in it that does not exist.
    """
    return regress_suite(load_suite(baseline), Store(storage), update=update, jobs=jobs, progress=compiling)
