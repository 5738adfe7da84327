"""Find, read and write the calibrations of our own kernels."""

import functools
import tomllib
from pathlib import Path

from moe_codesign.calibrations.catalogue import Entry, files, nearest, own_folder
from moe_codesign.calibrations.file import write
from moe_codesign.calibrations.ours import FORMAT, OurCalibration, OurCoefficients, OurFile
from moe_codesign.calibrations.trees import SymmetricTrees
from moe_codesign.chips import GpuChip
from moe_codesign.cost.ours.learned import INPUTS, OurModel
from moe_codesign.errors import UserError, first_line

_SUFFIX = "-ours"


def save(calibration: OurCalibration, folder: Path) -> Path:
    """Write the TOML file and the trees; returns the TOML's path."""
    return write(folder / f"{calibration.file.chip}{_SUFFIX}.toml", calibration.file, calibration.trees)


def of_chip(chip: GpuChip, *, shipped_only: bool = False) -> OurModel:
    """The model of our kernels on the chip, by its own races or by those of the most similar chip.

    Args:
        chip: the chip.
        shipped_only: leave out a user's own files.

    Raises:
        UserError: the file of the calibration cannot be read, or is missing.
    """
    entries = [
        Entry(path.stem.removesuffix(_SUFFIX), own, functools.partial(_read, path, path.stat().st_mtime_ns))
        for path, own in files(shipped_only=shipped_only)
        if path.stem.endswith(_SUFFIX)
    ]
    old = own_folder() / f"{chip.name}-native.toml"
    if not shipped_only and old.exists() and not any(entry.chip == chip.name and entry.own for entry in entries):
        raise UserError(f"calibration {old} has an earlier version's name", fix=f"rename it to {chip.name}-ours.toml")
    found = nearest(chip, entries)
    if found is None:
        raise UserError("no chip has a calibration of our kernels", fix="calibrate one, or reinstall moe-codesign")
    return OurModel(found.value, chip.name)


@functools.cache
def _read(path: Path, changed: int) -> OurCalibration:
    """The file as it was at that time: `calibrate` may write it anew in the same process."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        if table.get("format") != FORMAT:
            raise ValueError(f"of format {table.get('format')}, this version reads {FORMAT}")
        file = OurFile.model_validate(table)
        trees = SymmetricTrees.from_bytes(path.with_suffix(".trees.npz").read_bytes())
        if trees.inputs > INPUTS:
            raise ValueError(f"its trees ask for {trees.inputs} inputs, of which there are {INPUTS}")
        OurCoefficients(**file.coefficients)
        return OurCalibration(file, trees)
    except Exception as error:
        raise UserError(f"calibration {path}: {first_line(error)}", fix="calibrate again") from None
