"""Find, read and write the calibrations of our own kernels."""

import functools
import tomllib
from pathlib import Path

from moe_codesign.calibrations.catalogue import SHIPPED, distance, own_folder
from moe_codesign.calibrations.file import write
from moe_codesign.calibrations.ours import FORMAT, Coefficients, OurFile
from moe_codesign.calibrations.trees import SymmetricTrees
from moe_codesign.chips import GpuChip, load_chip
from moe_codesign.cost.ours.learned import INPUTS, OurModel
from moe_codesign.errors import UserError, first_line

_SUFFIX = "-ours"


def save(ours: OurModel, folder: Path) -> Path:
    """Write the TOML file and the trees; returns the TOML's path."""
    assert ours.file is not None
    return write(folder / f"{ours.file.chip}{_SUFFIX}.toml", ours.file, ours.trees)


def of_chip(chip: GpuChip, *, shipped_only: bool = False) -> OurModel:
    """What is known of our kernels on the chip; ``shipped_only``: leave out a user's own files.

    Raises:
        UserError: a file of its calibration cannot be read.
    """
    for folder in (SHIPPED,) if shipped_only else (own_folder(), SHIPPED):
        path = folder / f"{chip.name}{_SUFFIX}.toml"
        if path.exists():
            return _read(path, path.stat().st_mtime_ns)
    donors = _shipped()
    if not donors:
        return OurModel(Coefficients(), None, None)
    donor = (
        min(donors, key=lambda name: distance(chip, GpuChip.of(load_chip(name))))
        if len(donors) > 1
        else next(iter(donors))
    )
    return OurModel(_read(donors[donor], 0).coefficients, None, None, transferred_from=donor)


@functools.cache
def _shipped() -> dict[str, Path]:
    return {path.stem.removesuffix(_SUFFIX): path for path in sorted(SHIPPED.glob(f"*{_SUFFIX}.toml"))}


@functools.cache
def _read(path: Path, changed: int) -> OurModel:
    """The file as it was at that time: `calibrate` may write it anew in the same process."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        if table.get("format") != FORMAT:
            raise ValueError(f"of format {table.get('format')}, this version reads {FORMAT}")
        file = OurFile.model_validate(table)
        trees = SymmetricTrees.from_bytes(path.with_suffix(".trees.npz").read_bytes())
        if trees.inputs > INPUTS:
            raise ValueError(f"its trees ask for {trees.inputs} inputs, of which there are {INPUTS}")
        return OurModel(Coefficients(**file.coefficients), file, trees)
    except Exception as error:
        raise UserError(f"calibration {path}: {first_line(error)}", fix="calibrate again") from None
