"""Write a suite's facts to a file: what a process of another environment is asked."""

import sys

from moe_codesign.errors import UserError
from moe_codesign.regression.baseline import baseline_of, write_baseline
from moe_codesign.regression.observe import observe
from moe_codesign.regression.suite import load_suite


def main(suite: str, out: str, jobs: str) -> None:
    """Arguments: suite file, file to write, compiler processes."""
    from pathlib import Path

    try:
        write_baseline(Path(out), baseline_of(observe(load_suite(suite), jobs=int(jobs))))
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(*sys.argv[1:])
