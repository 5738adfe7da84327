"""Find and read chip files."""

import functools
import tomllib
from pathlib import Path

from moe_codesign.chips import host
from moe_codesign.chips.schema import Chip
from moe_codesign.errors import UserError
from moe_codesign.tables import read_table

_FOLDER = Path(__file__).parent


def chip_names() -> list[str]:
    """Names of all chips, ``cpu`` (this host) last."""
    return [*sorted(p.stem for p in _FOLDER.glob("*.toml")), "cpu"]


@functools.cache
def load_chip(name: str) -> Chip:
    """The chip of that name, or the one in that TOML file.

    Raises:
        UserError: no such chip, or the file is wrong (says where).
    """
    if name == "cpu":
        return host.detect()
    path = Path(name) if name.endswith(".toml") else _FOLDER / f"{name}.toml"
    if len(name) > 1000 or not path.is_file():
        raise UserError("chip", value=name, fix="use one of " + ", ".join(chip_names()) + ", or a path to a .toml")
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"chip file {path}: {error}") from None
    return read_table(Chip, data, f"chip file {path}")
