"""Find, read and write the calibrations of serving stacks."""

import functools
import tomllib
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from moe_codesign.calibrations.catalogue import Entry, Found, files, nearest
from moe_codesign.calibrations.file import write
from moe_codesign.calibrations.stacks import FORMAT, StackCoefficients, StackFile
from moe_codesign.calibrations.trees import SymmetricTrees
from moe_codesign.chips import GpuChip
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
        file = StackFile.model_validate(table)
        StackCoefficients(**file.coefficients)
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
    return {key: path for key, path, _ in _keyed(shipped_only=shipped_only)}


def _keyed(*, shipped_only: bool) -> Iterator[tuple[tuple[str, str, str], Path, bool]]:
    """Key and path of every stack's file, and whether it is the user's own, these last."""
    for path, own in files(shipped_only=shipped_only):
        if len(parts := path.stem.rsplit("-", 2)) == 3:
            yield (parts[0], parts[1], parts[2]), path, own


def find(
    chip: GpuChip, stack: str, dtype: str, *, without: str | None = None, shipped_only: bool = False
) -> Found[Calibration]:
    """The calibration of the chip under the stack, or that of the most similar chip which has one.

    Args:
        chip: the chip.
        stack: ``vllm`` or ``sglang``.
        dtype: data type of the layer; float16 without a calibration of its own takes bfloat16's.
        without: a chip to leave out, for asking what is known without its rows.
        shipped_only: leave out a user's own files.

    Raises:
        UserError: no chip has a calibration for that stack and dtype, or its file cannot be read.
    """
    keyed = list(_keyed(shipped_only=shipped_only))

    def entries(of: str) -> list[Entry[Calibration]]:
        return [
            Entry(name, own, functools.partial(_load, path))
            for (name, under, kind), path, own in keyed
            if (under, kind) == (stack, of) and name != without
        ]

    exact = [entry for entry in entries(dtype) if entry.chip == chip.name]
    found = nearest(chip, exact or entries("bfloat16" if dtype == "float16" else dtype))
    if found is None:
        known = sorted({(under, kind) for (_, under, kind), _, _ in keyed})
        raise UserError(
            f"no calibration for stack {stack} and dtype {dtype}",
            fix="use one of " + ", ".join(f"{s} {d}" for s, d in known) + ", or run `moe-codesign calibrate`",
        )
    return found
