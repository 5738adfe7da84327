"""Find, read and write the calibrations of serving stacks."""

import dataclasses
import functools
import tomllib
import zipfile
import zlib
from pathlib import Path

from moe_codesign.calibrations.catalogue import SHIPPED, distance, own_folder
from moe_codesign.calibrations.file import write
from moe_codesign.calibrations.stacks import FORMAT, CalibrationFile, Coefficients
from moe_codesign.calibrations.trees import SymmetricTrees
from moe_codesign.chips import GpuChip, chip_names, load_chip
from moe_codesign.cost.stacks.features import INPUTS
from moe_codesign.cost.stacks.model import Calibration
from moe_codesign.errors import UserError, first_line


def save(calibration: Calibration, folder: Path) -> Path:
    """Write the TOML file and the trees; returns the TOML's path."""
    file = calibration.file
    trees = calibration.trees if file.correction_share > 0 else None
    return write(folder / f"{file.chip}-{file.stack}-{file.dtype}.toml", file, trees)


def _load(path: Path) -> Calibration:
    return _read(path, path.stat().st_mtime_ns)


@functools.cache
def _read(path: Path, changed: int) -> Calibration:
    """The file as it was at that time: `calibrate` may write it anew in the same process."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        if table.get("format") != FORMAT:
            raise ValueError(f"of format {table.get('format', 1)}, this version reads {FORMAT}")
        file = CalibrationFile.model_validate(table)
        Coefficients(**file.coefficients)
        if file.correction_share == 0:
            return Calibration(file)
        trees = SymmetricTrees.from_bytes(path.with_suffix(".trees.npz").read_bytes())
        if trees.inputs > INPUTS:
            raise ValueError(f"its trees ask for {trees.inputs} inputs, of which there are {INPUTS}")
        return Calibration(file, trees)
    except (
        OSError,
        EOFError,
        zipfile.BadZipFile,
        zlib.error,
        RuntimeError,
        LookupError,
        ValueError,
        TypeError,
    ) as error:
        raise UserError(f"calibration {path}: {first_line(error)}", fix="calibrate again") from None


def every(*, shipped_only: bool = False) -> dict[tuple[str, str, str], Path]:
    """Files by (chip, stack, dtype), a user's own before the shipped ones."""
    found = {}
    for folder in (SHIPPED,) if shipped_only else (SHIPPED, own_folder()):
        for path in sorted(folder.glob("*-*-*.toml")):
            chip, stack, dtype = path.stem.rsplit("-", 2)
            found[chip, stack, dtype] = path
    return found


def find(
    chip: GpuChip, stack: str, dtype: str, *, without: str | None = None, shipped_only: bool = False
) -> Calibration:
    """The calibration of the chip under the stack, or that of the most similar chip which has one.

    Args:
        chip: where. stack: ``vllm`` or ``sglang``. dtype: of the layer; float16 without its own takes bfloat16's.
        without: a chip to leave out, for asking what is known without its rows.
        shipped_only: leave out a user's own files.

    Raises:
        UserError: no chip has a calibration for that stack and dtype.
    """
    paths = {
        key: path for key, path in every(shipped_only=shipped_only).items() if key[1] == stack and key[0] != without
    }
    if (chip.name, stack, dtype) in paths:
        return _load(paths[chip.name, stack, dtype])
    wanted = "bfloat16" if dtype == "float16" else dtype
    if (chip.name, stack, wanted) in paths:
        return _load(paths[chip.name, stack, wanted])
    donors = {name: path for (name, _, of), path in paths.items() if of == wanted and name in chip_names()}
    if not donors:
        known = sorted({key[1:] for key in every()})
        raise UserError(
            f"no calibration for stack {stack} and dtype {dtype}",
            fix="use one of " + ", ".join(f"{s} {d}" for s, d in known) + ", or run `moe-codesign calibrate`",
        )
    donor = min(donors, key=lambda name: distance(chip, GpuChip.of(load_chip(name))))
    return dataclasses.replace(_load(donors[donor]), transferred_from=donor)
