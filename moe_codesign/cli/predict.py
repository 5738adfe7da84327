"""The command ``moe-codesign predict``."""

from dataclasses import asdict
from pathlib import Path

import click

from moe_codesign.cli.options import JOBS, JSON, LAW, RECOMPILE, REFERENCE, TRAINING_TOKENS, emit, progress


@click.command()
@click.argument("problems", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Table to write: .csv, .jsonl or .parquet.")
@click.option("--explain", is_flag=True, help="Add a column parts_us that says where each time goes.")
@click.option(
    "--tuned", type=click.Path(path_type=Path), help="Folder of the tuned files of vLLM or SGLang (E=..,N=..json)."
)
@REFERENCE
@TRAINING_TOKENS
@LAW
@JOBS
@RECOMPILE
@JSON
def predict(
    problems: Path,
    out: Path,
    explain: bool,
    tuned: Path | None,
    reference: str | None,
    training_tokens: float | None,
    law: str | None,
    jobs: int,
    recompile: bool,
    as_json: bool,
) -> None:
    """Write a time for every problem of a table (.csv, .jsonl or .parquet); a row that cannot be answered gets its
    reason in the column `error`, and the other rows are unaffected. Run again after it was stopped, it goes on.

    \b
    Example: moe-codesign predict problems.csv --out times.csv
    """
    from moe_codesign.api.predict import predict_file

    with progress() as bar:
        try:
            found = predict_file(
                problems,
                out,
                explain=explain,
                tuned=tuned,
                reference=reference,
                training_tokens=training_tokens,
                law=law,
                jobs=jobs,
                recompile=recompile,
                compiling=bar("compile"),
                running=bar("predict"),
            )
        except KeyboardInterrupt:
            click.echo("rows that were answered are kept; the same command goes on", err=True)
            raise
    if as_json:
        emit({**asdict(found), "out": str(out)})
        return
    before = f" ({found.resumed} by an earlier run)" if found.resumed else ""
    click.echo(
        f"{found.rows - found.failed} of {found.rows} rows answered{before}, {found.failed} with an error; "
        f"{found.warned} with a warning; {out}"
    )
    for note in found.notes:
        click.echo(note)
