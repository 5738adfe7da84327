"""Find and read chip files."""

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from moe_codesign.chips.schema import CLASS_OF, Chip
from moe_codesign.errors import UserError
from moe_codesign.files import read_toml
from moe_codesign.tables import did_you_mean, read_table

_FOLDER = Path(__file__).parent


def chip_names() -> list[str]:
    """Names of all chips, ``cpu`` (this host) last."""
    return [*sorted(p.stem for p in _FOLDER.glob("*.toml")), "cpu"]


def load_chip(name: str) -> Chip:
    """The chip of that name, or the one in that TOML file as it is now.

    Raises:
        UserError: there is no such chip, or its file is wrong; says where.
    """
    if name == "cpu":
        return _host()
    path = Path(name) if name.endswith(".toml") else _FOLDER / f"{name}.toml"
    try:
        status = path.stat() if len(name) <= 1000 else None
    except (OSError, ValueError):
        status = None
    if status is None:
        raise UserError("chip", value=name, fix="use one of " + ", ".join(chip_names()) + ", or a path to a .toml")
    return _read(path, (status.st_mtime_ns, status.st_size, status.st_ino))


def load_chips(names: Iterable[str]) -> list[Chip]:
    """Chips that are compared with each other, in order; a name stands for one of them alone.

    Raises:
        UserError: as :func:`load_chip`; or two chips that differ have one name, which results are kept and shown by.
    """
    found: dict[str, Chip] = {}
    chips = [load_chip(name) for name in names]
    for chip in chips:
        if found.setdefault(chip.name, chip) != chip:
            raise UserError(
                f"two different chips have the name {chip.name}", fix="give the copy a `name` of its own in its file"
            )
    return chips


def parse_chip(data: dict[str, Any], source: str) -> Chip:
    """The chip that a file's table describes, of the class that its ``backend`` says.

    Args:
        data: the table.
        source: what the message begins with where the table is wrong.

    Raises:
        UserError: a number is missing or wrong, or has no source; names the key, the value and the fix.
    """
    if "backend" not in data:
        raise UserError(f"{source}: backend is missing; write one of {', '.join(CLASS_OF)}")
    backend = data["backend"]
    if not isinstance(backend, str) or backend not in CLASS_OF:
        raise UserError(f"{source}: backend = {backend!r} is unknown{did_you_mean(str(backend), CLASS_OF)}")
    return read_table(CLASS_OF[backend], data, source)


@functools.cache
def _host() -> Chip:
    from moe_codesign.chips import host

    return host.detect()


@functools.lru_cache(maxsize=1024)
def _read(path: Path, state: tuple[int, int, int]) -> Chip:
    """The chip file as it is in that state (time of change, size, inode): it may be edited while a program runs."""
    return parse_chip(read_toml(path), f"chip file {path}")
