"""Which fitted numbers serve a chip: its own, a user's before the shipped ones; else those of the most similar chip.

What was fitted to a chip's measurements lies in files, those that ship beside this module and a user's own in a folder
of theirs. Every cost model finds its numbers through :func:`nearest`.
"""

import functools
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import platformdirs

from moe_codesign.chips import CompiledChip, chip_names, load_chip

T = TypeVar("T")
SHIPPED = Path(__file__).parent
UNKNOWN_INTERVAL = (0.6, 2.4)
"""Low and high over the estimate where nothing was fitted to the chip: see results/interval_coverage.md."""


@dataclass(frozen=True)
class Entry(Generic[T]):
    """Something fitted to one chip's measurements, not read yet.

    Args:
        chip: the chip's name.
        own: whether it is the user's own.
        read: reads it.
    """

    chip: str
    own: bool
    read: Callable[[], T]


@dataclass(frozen=True)
class Found(Generic[T]):
    """What serves a chip.

    Args:
        value: the fitted numbers.
        chip: whose measurements they were fitted to: another chip's where the one asked about has none.
        own: whether they are the user's own.
        distance: how different that chip is, 0 where it is the same; see :func:`distance`.
    """

    value: T
    chip: str
    own: bool
    distance: float


def nearest(chip: CompiledChip, entries: Iterable[Entry[T]]) -> Found[T] | None:
    """The chip's own entry, or that of the most similar chip of the catalogue; None if no chip has an entry.

    A user's own entry comes before a shipped one of the same chip.
    """
    by_chip: dict[str, Entry[T]] = {}
    for entry in sorted(entries, key=lambda entry: not entry.own):
        by_chip.setdefault(entry.chip, entry)
    if (own := by_chip.get(chip.name)) is not None:
        return Found(own.read(), own.chip, own.own, 0.0)
    distances = {
        name: distance(chip, other)
        for name in by_chip
        if name in chip_names() and isinstance(other := load_chip(name), type(chip))
    }
    if not distances:
        return None
    donor = by_chip[min(distances, key=lambda name: distances[name])]
    return Found(donor.read(), donor.chip, donor.own, distances[donor.chip])


def files(*, shipped_only: bool = False) -> list[tuple[Path, bool]]:
    """Every fitted TOML file, and whether it is the user's own; ``shipped_only`` leaves those out."""
    folders = ((SHIPPED, False),) if shipped_only else ((SHIPPED, False), (own_folder(), True))
    return [(path, own) for folder, own in folders for path in _toml_files(folder)]


def _toml_files(folder: Path) -> tuple[Path, ...]:
    try:
        return _listed(folder, folder.stat().st_mtime_ns)
    except OSError:
        return ()


@functools.lru_cache(maxsize=64)
def _listed(folder: Path, changed: int) -> tuple[Path, ...]:
    """The folder as it was at that time: `calibrate` may write into it in the same process."""
    return tuple(sorted(folder.glob("*.toml")))


def own_folder() -> Path:
    """Where `moe-codesign calibrate` writes: MOE_CODESIGN_CALIBRATIONS, else the user's data folder."""
    chosen = os.environ.get("MOE_CODESIGN_CALIBRATIONS")
    return Path(chosen) if chosen else Path(platformdirs.user_data_dir("moe-codesign")) / "calibrations"


def family(chip: CompiledChip) -> str:
    """The chip's architecture: cuda:100 and cuda:103 are one, all of gfx94 are one, cuda:80 and cuda:89 are two."""
    target = chip.target
    return target[:-1] if target.startswith(("cuda:1", "hip:")) else target


def distance(chip: CompiledChip, other: CompiledChip) -> float:
    """How different two chips are: their architecture counts most, then FLOPs per byte, then peak."""

    def numbers(one: CompiledChip) -> tuple[float, float]:
        peak = one.peak("bfloat16")
        return math.log(peak / one.memory.hbm_bytes_per_s), math.log(peak)

    mine, theirs = numbers(chip), numbers(other)
    return 10.0 * (family(chip) != family(other)) + abs(mine[0] - theirs[0]) + 0.5 * abs(mine[1] - theirs[1])
