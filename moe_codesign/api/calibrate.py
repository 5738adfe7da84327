"""Fit the cost model of a chip to measured times."""

from pathlib import Path

from moe_codesign.calibrations.catalogue import own_folder
from moe_codesign.calibrations.ours import OurFile
from moe_codesign.chips import GpuChip, load_chip
from moe_codesign.cost.ours import shipped as ours_shipped
from moe_codesign.cost.stacks import shipped as stacks_shipped
from moe_codesign.cost.stacks.model import Calibration
from moe_codesign.domain.dtype import DEFAULT_DTYPE, parse_dtype
from moe_codesign.errors import UserError
from moe_codesign.extras import require
from moe_codesign.files import check_folder
from moe_codesign.fitting import ours as fitting_ours
from moe_codesign.fitting.measured import from_aiconfigurator, from_rows
from moe_codesign.fitting.races import read_races
from moe_codesign.fitting.stacks import calibrate_split
from moe_codesign.formats.tables import read_table
from moe_codesign.stacks import STACKS


def calibrate(
    chip: str,
    stack: str,
    *,
    dtype: str = DEFAULT_DTYPE,
    source: str | Path = "aiconfigurator",
    out: str | Path | None = None,
) -> tuple[Calibration, Path]:
    """Fit a calibration from measured times and write it; `predict` uses it from then on.

    Args:
        chip: catalogue name or chip file. dtype: of the rows.
        stack: ``vllm`` or ``sglang``; our own is :func:`calibrate_ours`.
        source: ``aiconfigurator``, or a table with the columns of `predict` and ``latency_us``. With few rows what is
            known of the chip, or of the most similar one, is scaled and no more.
        out: folder; default the user's own, which `predict` reads first (MOE_CODESIGN_CALIBRATIONS moves it).

    Raises:
        UserError: no such chip, stack or rows.
    """
    found = GpuChip.of(load_chip(chip))
    dtype = parse_dtype(dtype)
    if stack not in STACKS:
        raise UserError("stack", value=stack, fix="use " + ", ".join((*STACKS, "ours")))
    require("scipy", "calibrate")
    folder = Path(out) if out is not None else own_folder()
    check_folder(folder)
    try:
        # Not a user's own file: the same rows would count twice.
        start = stacks_shipped.find(found, stack, dtype, shipped_only=True).value
    except UserError:
        start = None  # the first of its stack and type begins at the general coefficients
    if str(source) == "aiconfigurator":
        require("pyarrow", "reading the tables of aiconfigurator-core")
        fitted = calibrate_split(from_aiconfigurator(found, stack, dtype), start)
    else:
        rows = read_table(Path(source))
        data = from_rows(found, stack, dtype, rows, str(source))
        fitted = calibrate_split(data, start, then_all=True)
    return fitted, stacks_shipped.save(fitted, folder)


def calibrate_ours(
    chip: str, source: str | Path, *, jobs: int = 1, out: str | Path | None = None
) -> tuple[OurFile, Path]:
    """Fit the cost model of our own kernels to races of their tiles, which benchmarks/gpu/tiles.py measures.

    Args:
        chip: catalogue name or chip file of a GPU.
        source: the table of races, .csv or .csv.gz, or a folder of them.
        jobs: compiler processes. Every tile is compiled, since the model reads the binary's facts.
        out: folder; default the user's own, as for :func:`calibrate`.

    Returns:
        What was fitted, and the file that it was written to.

    Raises:
        UserError: no such chip, too few races, or a malformed row.
    """
    found = GpuChip.of(load_chip(chip))
    require("scipy", "calibrate")
    folder = Path(out) if out is not None else own_folder()
    check_folder(folder)
    races = read_races(Path(source), found, jobs=jobs)
    fitted, _ = fitting_ours.calibrate(
        found, races, str(source), ours_shipped.of_chip(found, shipped_only=True).calibration.coefficients
    )
    return fitted.file, ours_shipped.save(fitted, folder)
