"""What the command line does, from Python: ``import moe_codesign as mc; mc.search("quickstart")``."""

import contextlib
import importlib.metadata
import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moe_codesign.auditing import AuditRow, audit_shape
from moe_codesign.benching import BenchRow, bench_layer
from moe_codesign.calibrating import native as calibrating_native
from moe_codesign.calibrating.fit import calibrate_split
from moe_codesign.calibrating.measured import from_aiconfigurator, from_rows
from moe_codesign.chips import load_chip
from moe_codesign.compiler import Artifact, ArtifactCache, compile_all, compile_functions, requests_for, unlaunchable
from moe_codesign.compiler.build import Progress
from moe_codesign.compiler.function import CompiledFunction, function_request
from moe_codesign.cost import calibration, native
from moe_codesign.cost.calibration import Calibration
from moe_codesign.cost.native import NativeFile
from moe_codesign.cost.stacks import STACKS
from moe_codesign.cost.table import Tables, kernel_for
from moe_codesign.errors import UserError
from moe_codesign.models import find_model
from moe_codesign.prediction import check_folder, check_output, predict_rows, read_table, write_table
from moe_codesign.regression.run import RegressionResult, regress_suite
from moe_codesign.regression.suite import load_suite
from moe_codesign.reports.html import write_html
from moe_codesign.reports.rows import ReportRow, report_rows
from moe_codesign.routing import Routing
from moe_codesign.rows import Row
from moe_codesign.shape import MoEShape
from moe_codesign.store import Store
from moe_codesign.study.runner import Report, SearchResult, read_search, run_search
from moe_codesign.study.space import Space, load_space, parse_space
from moe_codesign.workload import Workload
from moe_kernels.kernel import Op, Problem
from moe_kernels.tile import TileConfig, Value

DEFAULT_STORAGE = "sqlite:///results/runs/moe-codesign.db"


def provenance() -> dict[str, str]:
    """Versions that a result depends on."""
    found = {"python": platform.python_version(), "platform": platform.machine()}
    for package in ("moe-codesign", "triton", "torch", "jax", "libtpu", "optuna", "numpy"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def search(
    space: str | Path | Space,
    *,
    chips: Sequence[str] | None = None,
    trials: int | None = None,
    jobs: int = 1,
    storage: str = DEFAULT_STORAGE,
    study: str | None = None,
    seed: int | None = None,
    out: str | Path | None = None,
    compiling: Progress | None = None,
    running: Report | None = None,
) -> SearchResult:
    """Search the pair of shape and tiles; the same study goes on where it stopped.

    Args:
        space: a space file, the name of one that comes with the project, or a Space.
        chips: instead of the space's.
        trials: instead of the space's budget; over all chips and modes.
        jobs: compiler processes.
        storage: database URL.
        study: name; default the space's.
        seed: instead of the space's.
        out: folder for report.html and pairs.json; none written if None.
        compiling, running: progress callbacks.

    Raises:
        UserError: wrong space, chip, storage or study.
    """
    loaded = space if isinstance(space, Space) else load_space(space, chips=list(chips) if chips else None)
    updates: dict[str, Any] = {}
    if isinstance(space, Space) and chips:
        updates["chips"] = list(chips)
    if seed is not None:
        updates["seed"] = seed
    if updates:
        loaded = Space.model_validate({**loaded.model_dump(), **updates})
    asked = trials if trials is not None else loaded.budget.trials
    if asked < 1:
        raise UserError("trials", value=asked, mend="give at least 1")
    if out is not None:
        check_folder(Path(out))
    name = study or loaded.name
    store = Store(storage)
    # The number of trials may grow from run to run; everything else makes another study.
    identity = loaded.model_dump(mode="json")
    identity["budget"].pop("trials")
    store.open_study(name, json.dumps(identity, sort_keys=True), provenance())
    tables = Tables(jobs=jobs, progress=compiling)
    result = run_search(loaded, store, tables, study=name, trials=asked, report=running)
    if out is not None:
        write_report(result, Path(out), store.study(name)["provenance"])
    return result


def write_report(result: SearchResult, folder: Path, versions: dict[str, str]) -> Path:
    """Write report.html and pairs.json; returns the report's path."""
    path = folder / "report.html"
    write_html(path, result, versions)
    (folder / "pairs.json").write_text(json.dumps([row.to_dict() for row in report_rows(result)], indent=1))
    return path


def load_study(name: str, *, storage: str = DEFAULT_STORAGE) -> tuple[SearchResult, dict[str, str]]:
    """A stored study and the versions it was made with.

    Raises:
        UserError: no such study.
    """
    if storage.startswith("sqlite:///") and not Path(storage.removeprefix("sqlite:///")).exists():
        raise UserError("storage", value=storage, mend="there is no such file; run `moe-codesign search` first")
    store = Store(storage)
    stored = store.study(name)
    space = Space.model_validate(json.loads(stored["space"]))
    return read_search(space, store, name), stored["provenance"]


def report(study: str, *, storage: str = DEFAULT_STORAGE, out: str | Path = "report.html") -> Path:
    """Write the HTML report of a stored study; returns its path. Raises UserError if there is none."""
    check_folder(Path(out).parent)
    result, versions = load_study(study, storage=storage)
    write_html(Path(out), result, versions)
    return Path(out)


def audit(
    model: str | MoEShape,
    chips: Sequence[str],
    *,
    tokens: Sequence[int] = (1, 64, 4096),
    dtype: str = "bfloat16",
    routing: str = "uniform",
    tp: int = 1,
    ep: int = 1,
    jobs: int = 1,
    compiling: Progress | None = None,
) -> list[AuditRow]:
    """Where a model (catalogue name, config.json or shape) loses time on each chip."""
    shape = model if isinstance(model, MoEShape) else find_model(model)
    return audit_shape(
        shape,
        [load_chip(name) for name in chips],
        tokens,
        Tables(jobs=jobs, progress=compiling),
        dtype=dtype,
        routing=routing,
        tp=tp,
        ep=ep,
    )


def predict(
    problems: str | Path | Sequence[Row],
    *,
    out: str | Path | None = None,
    explain: bool = False,
    tuned: str | Path | None = None,
    jobs: int = 1,
    compiling: Progress | None = None,
    running: Progress | None = None,
) -> list[Row]:
    """Answer a table of problems (a file, or rows); writes ``out`` if given. A bad row is told in its row.

    ``explain`` adds ``parts_us``, JSON of where each time goes. ``tuned`` is a folder of vLLM's or SGLang's tuned
    files, for rows with that ``stack``.
    """
    if out is not None:
        check_output(Path(out))
    rows = read_table(Path(problems)) if isinstance(problems, str | Path) else list(problems)
    if tuned is not None and not Path(tuned).is_dir():
        raise UserError(
            "folder of tuned files", value=str(tuned), mend="give a folder of E=..,N=..,device_name=...json"
        )
    tables = Tables(jobs=jobs, progress=compiling)
    answered = predict_rows(
        rows, tables, explain=explain, tuned=Path(tuned) if tuned is not None else None, progress=running
    )
    if out is not None:
        write_table(Path(out), answered)
    return answered


def calibrate(
    chip: str,
    stack: str,
    *,
    dtype: str = "bfloat16",
    source: str | Path = "aiconfigurator",
    out: str | Path | None = None,
) -> tuple[Calibration, Path]:
    """Fit a calibration from measured times and write it; `predict` uses it from then on.

    Args:
        chip: catalogue name or chip file. dtype: of the rows.
        stack: ``vllm`` or ``sglang``; our own is :func:`calibrate_native`.
        source: ``aiconfigurator``, or a table with the columns of `predict` and ``latency_us``. With few rows what is
            known of the chip, or of the most similar one, is scaled and no more.
        out: folder; default the user's own, which `predict` reads first (MOE_CODESIGN_CALIBRATIONS moves it).

    Raises:
        UserError: no such chip, stack or rows.
    """
    found = load_chip(chip)
    if stack not in STACKS:
        raise UserError("stack", value=stack, mend="use " + ", ".join((*STACKS, "native")))
    folder = Path(out) if out is not None else calibration.own_folder()
    check_folder(folder)
    try:
        # Not a user's own file: the same rows would count twice.
        start = calibration.find(found, stack, dtype, shipped_only=True)
    except UserError:
        start = None  # the first of its stack and type begins at the general coefficients
    if str(source) == "aiconfigurator":
        fitted = calibrate_split(from_aiconfigurator(found, stack, dtype), start)
    else:
        rows = read_table(Path(source))
        data = from_rows(found, stack, dtype, rows, str(source))
        fitted = calibrate_split(data, start, then_all=True)
    return fitted, calibration.save(fitted, folder)


def calibrate_native(
    chip: str, source: str | Path, *, jobs: int = 1, out: str | Path | None = None
) -> tuple[NativeFile, Path]:
    """The same for our own kernels, from races of their tiles (benchmarks/gpu/tiles.py makes a table of them).

    Args:
        chip: catalogue name or chip file, a GPU. source: the table, .csv or .csv.gz, or a folder of them.
        jobs: compiler processes: every tile is compiled, since the model reads the binary's facts.
        out: as :func:`calibrate`.

    Raises:
        UserError: no such chip, too few races, or a row that is none.
    """
    found = load_chip(chip)
    if found.backend != "triton":
        raise UserError(f"our kernels' tiles are raced on GPUs, {found.name} is none", mend="give a GPU's name")
    folder = Path(out) if out is not None else calibration.own_folder()
    check_folder(folder)
    races = calibrating_native.read_races(Path(source), found, jobs=jobs)
    fitted, _ = calibrating_native.calibrate(
        found, races, str(source), native.of_chip(found, shipped_only=True).coefficients
    )
    assert fitted.file is not None
    return fitted.file, native.save(fitted, folder)


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


@dataclass(frozen=True)
class Compiled:
    """One tile's artifact on a chip, and why the chip cannot run it if so."""

    artifact: Artifact
    refused: str | None


def compile_kernel(
    kernel: str,
    chip: str,
    *,
    tile: dict[str, Value] | None = None,
    dtype: str = "bfloat16",
    jobs: int = 1,
    compiling: Progress | None = None,
) -> list[Compiled]:
    """What the chip's compiler makes of a kernel's ops with one tile (default: the kernel's own).

    Raises:
        UserError: unknown kernel or chip, a kernel for another backend, a tile field unknown or missing.
    """
    found = load_chip(chip)
    one = kernel_for(found, kernel)
    configs: dict[Op, TileConfig] = {}
    ops: tuple[Op, ...] = ("gate_up", "down")
    for op in ops:
        default = one.default_tile(Problem(op=op, dtype=dtype), 128.0, found.target)
        try:
            configs[op] = one.tile_type.from_dict({**default.as_dict(), **(tile or {})})
        except ValueError as error:
            raise UserError(f"tile: {error}") from None
    if one.build is None:
        raise UserError(f"kernel {kernel} runs on the host alone", mend="there is nothing to compile ahead of time")
    requests = {
        op: request
        for op, config in configs.items()
        for request in requests_for(one, found, (op,), dtype, (config,)).values()
    }
    artifacts = compile_all(requests.values(), ArtifactCache(), jobs=jobs, progress=compiling)
    return [
        Compiled(artifacts[request], unlaunchable(artifacts[request], configs[op], found))
        for op, request in requests.items()
    ]


def compile_function(function: str, arguments: str, chip: str) -> CompiledFunction:
    """What a TPU's compiler makes of any JAX function.

    Args:
        function: ``module:callable``.
        arguments: types and shapes, as in ``bfloat16[512,2048] int32[8]``.

    Raises:
        UserError: unknown chip, one that is no TPU, or a function or arguments that cannot be read.
    """
    found = load_chip(chip)
    if found.backend != "pallas" or found.target is None:
        raise UserError(f"chip {found.name} takes no JAX functions", mend="name a TPU, as tpu_v6e")
    request = function_request(function, found.target, arguments=arguments)
    result = compile_functions([request], ArtifactCache())[request]
    if result.status == "missing":
        raise UserError(f"function {function}: {result.reason}")
    return result


def bench(
    model: str | MoEShape,
    *,
    chip: str = "cpu",
    tokens: Sequence[int] = (8, 64),
    tiles: Sequence[dict[str, Value]] | None = None,
    routing: str = "uniform",
    tp: int = 1,
    ep: int = 1,
    seed: int = 0,
    seconds: float = 1.0,
) -> list[BenchRow]:
    """Launch, verify and time a layer on a device that is here.

    Args:
        model: catalogue name, config.json or shape.
        chip: ``cpu``, ``cuda``, ``tpu``, or a catalogue chip that this machine holds.
        tokens: batch sizes.
        tiles: tiles to race, each for both GEMMs; default the kernel's.
        routing, tp, ep: as in a workload; one rank is timed.
        seconds: of timing per tile.

    Raises:
        UserError: the device is not here, the model does not fit the host.
    """
    shape = model if isinstance(model, MoEShape) else find_model(model)
    workloads = [
        Workload(name="bench", num_tokens=count, routing=Routing.parse(routing), tp=tp, ep=ep, seed=seed)
        for count in tokens
    ]
    return bench_layer(shape, chip, workloads, tiles=tiles, seconds=seconds)


__all__ = [
    "BenchRow",
    "Compiled",
    "RegressionResult",
    "ReportRow",
    "SearchResult",
    "Space",
    "audit",
    "bench",
    "calibrate",
    "compile_function",
    "compile_kernel",
    "find_model",
    "load_space",
    "load_study",
    "parse_space",
    "predict",
    "provenance",
    "regress",
    "report",
    "report_rows",
    "search",
    "write_report",
]
