"""The command ``moe-codesign predict``."""

from pathlib import Path

import click

from moe_codesign.cli.options import JOBS, JSON, RECOMPILE, emit, progress


@click.command()
@click.argument("problems", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Table to write: .csv, .jsonl or .parquet.")
@click.option("--explain", is_flag=True, help="Add a column parts_us that says where each time goes.")
@click.option(
    "--tuned", type=click.Path(path_type=Path), help="Folder of the tuned files of vLLM or SGLang (E=..,N=..json)."
)
@JOBS
@RECOMPILE
@JSON
def predict(
    problems: Path, out: Path, explain: bool, tuned: Path | None, jobs: int, recompile: bool, as_json: bool
) -> None:
    """Write a time for every problem of a table (.csv, .jsonl or .parquet); a row that cannot be answered gets its
    reason in the column `error`, and the other rows are unaffected.

    \b
    Example: moe-codesign predict problems.csv --out times.csv
    """
    import moe_codesign as mc

    with progress() as bar:
        rows = mc.predict(
            problems,
            out=out,
            explain=explain,
            tuned=tuned,
            jobs=jobs,
            recompile=recompile,
            compiling=bar("compile"),
            running=bar("predict"),
        )
    failed = sum(bool(row["error"]) for row in rows)
    warned = sum(bool(row["warning"]) for row in rows)
    if as_json:
        emit({"rows": len(rows), "failed": failed, "warned": warned, "out": str(out)})
    else:
        click.echo(
            f"{len(rows) - failed} of {len(rows)} rows answered, {failed} with an error; {warned} with a warning; {out}"
        )
