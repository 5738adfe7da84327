"""Find and read chip files."""

import functools
import re
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

    A name may be spelt as people and drivers do: ``H100``, ``MI300X``, ``NVIDIA_H100_80GB_HBM3``, ``TPU v6e``. A name
    without a variant means the one variant that the catalogue has (``H100`` is ``h100_sxm``); a variant that it does
    not have (``H100 PCIe``) is no chip of it.

    Raises:
        UserError: there is no such chip, or its file is wrong; says where.
    """
    if not name.endswith(".toml") and not (_FOLDER / f"{name}.toml").is_file():
        name = chip_named(name) or name
    if name == "cpu":
        return _host()
    path = Path(name) if name.endswith(".toml") else _FOLDER / f"{name}.toml"
    try:
        status = path.stat() if len(name) <= 1000 else None
    except (OSError, ValueError):
        status = None
    if status is None:
        known = "use one of " + ", ".join(chip_names()) + ", or a path to a .toml"
        if like := _like(name):
            known = f"of that kind there is {' and '.join(like)} alone; " + known
        raise UserError("chip", value=name, fix=known)
    return _read(path, (status.st_mtime_ns, status.st_size, status.st_ino))


@functools.lru_cache(maxsize=1024)
def chip_named(text: str) -> str | None:
    """The catalogue name of a chip from the words that people and drivers have for it, or None.

    What is said must be a chip's own name, in any case, or part of one chip's names (its own, its product's and its
    driver's) and of no other chip's.
    """
    if (plain := re.sub(r"[ _-]+", "_", text.strip().lower())) in chip_names():
        return plain
    said = _words(text)
    matches = [name for name, words in _names().items() if said and said <= words and _told_apart(said, words)]
    return matches[0] if len(matches) == 1 else None


def _like(text: str) -> list[str]:
    """Chips of the family that a text names, whatever variant it goes on to name."""
    return [name for name, words in _names().items() if _told_apart(_words(text), words)]


_MAKERS = frozenset((
    "nvidia", "amd", "intel", "huawei", "aws", "google", "cloud", "gpu", "tpu", "instinct", "accelerator", "chip",
    "one", "oam", "ac", "server", "edition", "gb", "tensor", "core", "the",
))  # fmt: skip
"""Words that tell no chip of the catalogue from another."""
_SAME = {
    "v5litepod": "v5e",
    "v5lite": "v5e",
    "v6lite": "v6e",
    "v7x": "tpu7x",
    "trn2": "trainium2",
    "trn3": "trainium3",
    "7x": "tpu7x",
}


def _words(text: str) -> frozenset[str]:
    joined = re.sub(r"(?<=v\d)[ _-]?lite(pod)?", r"lite", text.lower())
    joined = re.sub(r"(\d+) ?gb", r"\1gb", joined)
    found = (_SAME.get(word, word) for word in re.split(r"[^a-z0-9]+", joined) if word)
    return frozenset(re.sub(r"^(sxm|hbm)\d*$", r"\1", word) for word in found) - _MAKERS


@functools.cache
def _names() -> dict[str, frozenset[str]]:
    """All words that name each chip of the catalogue."""
    found = {}
    for name in chip_names():
        if name != "cpu":
            chip = load_chip(name)
            texts = (chip.name, chip.product, *getattr(chip, "device_names", ()), *_MORE.get(name, ()))
            found[name] = frozenset().union(*map(_words, texts))
    return found


_MORE = {"h200_sxm": ("H200 141GB HBM3e",), "mi355x": ("MI355",), "rtx_pro_6000": ("RTXPRO6000 RTX6000PRO",)}


def _told_apart(said: frozenset[str], words: frozenset[str]) -> bool:
    """Whether what is said holds a word of the chip's that no other chip has, so that it is no mere "80 GB SXM"."""
    return any(sum(word in other for other in _names().values()) == 1 for word in said & words)


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
