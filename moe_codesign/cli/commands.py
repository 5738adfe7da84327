"""The commands, but for regress. Heavy imports happen inside them, so that ``--help`` is quick."""

import sys
from collections.abc import Callable
from pathlib import Path

import click

from moe_codesign.cli.options import JOBS, JSON, STORAGE, Fields, Names, Numbers, console, emit, progress
from moe_codesign.errors import UserError


@click.command()
@click.argument("space")
@click.option("--chips", type=Names(), help="Instead of the space's.")
@click.option("--trials", type=click.IntRange(1), help="Over all chips and modes; instead of the space's.")
@JOBS
@click.option("--storage", default=STORAGE, show_default=True, help="Database URL.")
@click.option("--study", help="Name; default the space's. The same name goes on where it stopped.")
@click.option("--seed", type=click.IntRange(0), help="Instead of the space's.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the report; default results/runs/STUDY.")
@JSON
def search(
    space: str,
    chips: list[str] | None,
    trials: int | None,
    jobs: int,
    storage: str,
    study: str | None,
    seed: int | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Search shape and tiles together over SPACE, a TOML file or the name of one in search_spaces/.

    \b
    Example: moe-codesign search quickstart --chips h100_sxm,tpu_v6e --trials 100
    """
    from moe_codesign import api

    loaded = api.load_space(space, chips=chips)
    folder = out or Path("results/runs") / (study or loaded.name)
    with progress() as bar:
        bars: dict[str, Callable[[int, int], None]] = {}

        def running(chip: str, mode: str, done: int, total: int) -> None:
            label = f"{chip} {mode}"
            bars.setdefault(label, bar(label))(done, total)

        result = api.search(
            loaded,
            trials=trials,
            jobs=jobs,
            storage=storage,
            study=study,
            seed=seed,
            out=folder,
            compiling=bar("compile"),
            running=running,
        )
    if as_json:
        emit(
            {
                "study": result.study,
                "storage": storage,
                "report": str(folder / "report.html"),
                "trials": len(result.trials),
                "interrupted": result.interrupted,
                "pairs": [row.to_dict() for row in api.report_rows(result) if row.on_frontier],
            }
        )
    else:
        from moe_codesign.reports.terminal import print_search

        print_search(console(), result)
        click.echo(f"{len(result.trials)} trials in {storage}; report: {folder / 'report.html'}")
    if result.interrupted:
        click.echo("interrupted; the same command goes on from here", err=True)
        sys.exit(130)


@click.command()
@click.argument("model")
@click.option("--chips", type=Names(), required=True)
@click.option("--tokens", type=Numbers(), default="1,64,4096", show_default=True)
@click.option("--dtype", default="bfloat16", show_default=True)
@click.option("--routing", default="uniform", show_default=True)
@click.option("--tp", type=click.IntRange(1), default=1)
@click.option("--ep", type=click.IntRange(1), default=1)
@JOBS
@JSON
def audit(
    model: str,
    chips: list[str],
    tokens: list[int],
    dtype: str,
    routing: str,
    tp: int,
    ep: int,
    jobs: int,
    as_json: bool,
) -> None:
    """Show where MODEL (a catalogue name or a config.json) loses time on each chip.

    \b
    Example: moe-codesign audit DeepSeek-V3 --chips h100_sxm,tpu_v6e --tokens 1,64,4096
    """
    from moe_codesign import api

    shape = api.find_model(model)
    with progress() as bar:
        rows = api.audit(
            shape,
            chips,
            tokens=tokens,
            dtype=dtype,
            routing=routing,
            tp=tp,
            ep=ep,
            jobs=jobs,
            compiling=bar("compile"),
        )
    if as_json:
        emit(rows)
    else:
        from moe_codesign.reports.terminal import print_audit

        split = "".join(f", {name} {n}" for name, n in (("tp", tp), ("ep", ep)) if n > 1)
        print_audit(console(), f"{shape.name}: one layer, {shape.label()}, {dtype}, {routing} routing{split}", rows)


@click.command()
@click.argument("problems", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--explain", is_flag=True, help="Add a column parts_us: where each time goes.")
@click.option("--tuned", type=click.Path(path_type=Path), help="Folder of the stack's tuned files (E=..,N=...json).")
@JOBS
@JSON
def predict(problems: Path, out: Path, explain: bool, tuned: Path | None, jobs: int, as_json: bool) -> None:
    """Write a time for every problem of a table (.csv, .jsonl or .parquet); a bad row is told in its own row.

    \b
    Example: moe-codesign predict problems.csv --out times.csv
    """
    from moe_codesign import api

    with progress() as bar:
        rows = api.predict(
            problems, out=out, explain=explain, tuned=tuned, jobs=jobs, compiling=bar("compile"), running=bar("predict")
        )
    failed = sum(bool(row["error"]) for row in rows)
    if as_json:
        emit({"rows": len(rows), "failed": failed, "out": str(out)})
    else:
        click.echo(f"{len(rows) - failed} of {len(rows)} rows answered, {failed} with an error; {out}")


@click.command()
@click.option("--chip", required=True, help="Catalogue name or chip file.")
@click.option("--stack", required=True, help="vllm or sglang: whose fused MoE was timed; native: ours.")
@click.option("--dtype", default="bfloat16", show_default=True)
@click.option(
    "--from", "source", default="aiconfigurator", show_default=True,
    help="aiconfigurator (the installed aiconfigurator-core), or a table as for predict with a column latency_us; "
    "of native the races that benchmarks/gpu/tiles.py writes.",
)  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), help="Folder; default your own, which predict reads first.")
@JOBS
@JSON
def calibrate(chip: str, stack: str, dtype: str, source: str, out: Path | None, jobs: int, as_json: bool) -> None:
    """Fit the cost model of a chip under a software stack to measured times.

    \b
    Example: moe-codesign calibrate --chip h100_sxm --stack vllm --from my_times.csv
    """
    from moe_codesign import api

    if stack == "native":
        if source == "aiconfigurator":
            raise UserError("aiconfigurator has no times of our kernels", mend="give --from FILE, a table of races")
        raced, path = api.calibrate_native(chip, source, jobs=jobs, out=out)
        if as_json:
            emit({"path": str(path), **raced.model_dump()})
            return
        click.echo(
            f"{path}: {raced.rows} tiles of {raced.races} races ({', '.join(raced.log_width)}) fitted; on shapes left "
            f"out: error {raced.error:.1%}, loss of the tile named best {raced.regret:.1%} (physics alone "
            f"{raced.physics_error:.1%}, {raced.physics_regret:.1%}); 90 % lie within "
            + ", ".join(f"{width:.1%} ({dtype})" for dtype, width in raced.log_width.items())
        )
        return
    fitted, path = api.calibrate(chip, stack, dtype=dtype, source=source, out=out)
    file = fitted.file
    if as_json:
        emit({"path": str(path), **file.model_dump()})
        return
    left_out = "; ".join(f"{count} {reason}" for reason, count in file.left_out.items()) or "none"
    click.echo(f"{path}: {file.rows} rows of {file.shapes} shapes fitted, left out: {left_out}")
    if (judged := file.held_out) is not None:
        click.echo(
            f"on {judged.rows} rows of {judged.shapes} shapes that it has not seen: error {judged.mape:.1f} % mean, "
            f"{judged.median:.1f} % median, {judged.p90:.1f} % 90th percentile (physics alone "
            f"{judged.physics_mape:.1f} %, {judged.physics_median:.1f} %); 90 % intervals hold "
            f"{judged.interval_coverage:.0f} %"
        )
    else:
        click.echo("no shapes were held out: too few rows or shapes")


@click.command("compile")
@click.option("--kernel", help="See `moe-codesign list kernels`.")
@click.option("--function", "function", help="A JAX function of your own, as module:callable, for a TPU.")
@click.option("--arguments", help="Its arguments' types and shapes: 'bfloat16[512,2048] int32[8]'.")
@click.option("--chip", required=True)
@click.option("--tile", type=Fields(), help="Fields to change from the kernel's default tile.")
@click.option("--dtype", default="bfloat16", show_default=True, help="Of weights and activations.")
@JOBS
@JSON
def compile_(
    kernel: str | None,
    function: str | None,
    arguments: str | None,
    chip: str,
    tile: dict[str, int | bool] | None,
    dtype: str,
    jobs: int,
    as_json: bool,
) -> None:
    """Show what the chip's compiler made of a kernel, or of any JAX function.

    \b
    Example: moe-codesign compile --kernel triton.grouped_gemm --chip h100_sxm --tile block_m=64,block_n=256
             moe-codesign compile --chip tpu_v6e --function jax.numpy:dot --arguments 'bf16[512,1024] bf16[1024,512]'
    """
    from moe_codesign import api
    from moe_codesign.reports.terminal import print_compiled, print_function

    if (kernel is None) == (function is None) or (function is None) != (arguments is None):
        raise UserError("compile takes a kernel or a function", mend="give --kernel, or --function and --arguments")
    if function is not None and arguments is not None:
        found = api.compile_function(function, arguments, chip)
        if as_json:
            emit(found)
        else:
            print_function(console(), function, chip, found)
        if found.refused:
            sys.exit(1)
        return
    assert kernel is not None
    with progress() as bar:
        compiled = api.compile_kernel(kernel, chip, tile=tile, dtype=dtype, jobs=jobs, compiling=bar("compile"))
    if as_json:
        emit(compiled)
    else:
        print_compiled(console(), chip, compiled)
    if any(one.refused for one in compiled):
        sys.exit(1)


@click.command()
@click.option("--device", "device", default="cpu", show_default=True, help="cpu, cuda, tpu or a catalogue chip.")
@click.option("--model", default="Qwen3-30B-A3B", show_default=True, help="Catalogue name or config.json.")
@click.option("--tokens", type=Numbers(), default="8,64", show_default=True)
@click.option("--tile", "tiles", type=Fields(), multiple=True, help="A tile to race; may be given again.")
@click.option("--routing", default="uniform", show_default=True)
@click.option("--tp", type=click.IntRange(1), default=1)
@click.option(
    "--ep", type=click.IntRange(1), default=16, show_default=True, help="Expert-parallel ranks; one is timed."
)
@click.option("--seed", type=click.IntRange(0), default=0)
@click.option("--seconds", type=click.FloatRange(0.01), default=1.0, show_default=True, help="Of timing per tile.")
@JSON
def bench(
    device: str,
    model: str,
    tokens: list[int],
    tiles: tuple[dict[str, int | bool], ...],
    routing: str,
    tp: int,
    ep: int,
    seed: int,
    seconds: float,
    as_json: bool,
) -> None:
    """Launch, verify and time a layer on a device of this machine.

    \b
    Example: moe-codesign bench --tokens 8 --tile tile_m=16,tile_k=2048,tile_n=1024
    """
    from moe_codesign import api

    rows = api.bench(
        model, chip=device, tokens=tokens, tiles=tiles, routing=routing, tp=tp, ep=ep, seed=seed, seconds=seconds
    )
    if as_json:
        emit(rows)
    else:
        from moe_codesign.reports.terminal import print_bench

        print_bench(console(), f"{model}, ep {ep}, tp {tp}, {routing} routing", rows)
    if any(row.timing is None or row.reason for row in rows):
        sys.exit(1)


@click.command()
@click.argument("study")
@click.option("--storage", default=STORAGE, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="HTML file; default results/runs/STUDY/report.html.")
@JSON
def report(study: str, storage: str, out: Path | None, as_json: bool) -> None:
    """Print a stored study's table and write its HTML report.

    \b
    Example: moe-codesign report quickstart --out report.html
    """
    from moe_codesign import api
    from moe_codesign.reports.terminal import print_search

    path = out or Path("results/runs") / study / "report.html"
    result, _ = api.load_study(study, storage=storage)
    api.report(study, storage=storage, out=path)
    if as_json:
        rows = [row.to_dict() for row in api.report_rows(result)]
        emit({"study": study, "report": str(path), "trials": len(result.trials), "pairs": rows})
    else:
        print_search(console(), result)
        click.echo(f"report: {path}")


@click.command("list")
@click.argument("what", type=click.Choice(["chips", "models", "kernels", "spaces", "studies"]))
@click.option("--storage", default=STORAGE, show_default=True, help="For studies.")
@JSON
def list_(what: str, storage: str, as_json: bool) -> None:
    """List what there is.

    \b
    Example: moe-codesign list chips
    """
    from moe_codesign import listing

    rows = listing.rows(what, storage)
    if as_json:
        emit(rows)
    elif rows:
        from moe_codesign.reports.terminal import print_rows

        print_rows(console(), what, rows)
    else:
        click.echo(f"no {what}")
