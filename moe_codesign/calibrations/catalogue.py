"""Where fitted files lie, a user's own before the shipped ones, and which chips are similar."""

import math
import os
from pathlib import Path

import platformdirs

from moe_codesign.chips import GpuChip

SHIPPED = Path(__file__).parent


def own_folder() -> Path:
    """Where `moe-codesign calibrate` writes: MOE_CODESIGN_CALIBRATIONS, else the user's data folder."""
    chosen = os.environ.get("MOE_CODESIGN_CALIBRATIONS")
    return Path(chosen) if chosen else Path(platformdirs.user_data_dir("moe-codesign")) / "calibrations"


def family(chip: GpuChip) -> str:
    """Of the architecture: cuda:100 and cuda:103 are one, so is what begins with gfx94; cuda:80 and cuda:89 are two."""
    target = chip.target
    return target[:-1] if target.startswith(("cuda:1", "hip:")) else target


def distance(chip: GpuChip, other: GpuChip) -> float:
    """Between chips: one architecture first, then FLOPs a byte and peak."""

    def numbers(one: GpuChip) -> tuple[float, float]:
        peak = one.peak("bfloat16")
        return math.log(peak / one.memory.hbm_bytes_per_s), math.log(peak)

    mine, theirs = numbers(chip), numbers(other)
    return 10.0 * (family(chip) != family(other)) + abs(mine[0] - theirs[0]) + 0.5 * abs(mine[1] - theirs[1])
