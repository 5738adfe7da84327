"""The file of how far operations are from the roofline on GPUs that were measured."""

import functools
from pathlib import Path

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from moe_codesign.files import read_json, replace_file
from moe_codesign.tables import Table, read_table

PATH = Path(__file__).parent / "roofline_operations.json"


class Slowdown(Table):
    """One operation.

    Attributes:
        compute: time over operations at peak. memory: over bytes at full bandwidth, of memory or of links.
        fixed_us: what is added, however small the problem.
        interval: log error that nine in ten rows of a chip do not exceed whose rows were not fitted.
        rows, chips: that were fitted.
    """

    compute: PositiveFloat
    memory: PositiveFloat
    fixed_us: NonNegativeFloat
    interval: PositiveFloat
    rows: PositiveInt
    chips: PositiveInt


class SlowdownsFile(Table):
    """The whole file."""

    source: str
    operations: dict[str, Slowdown]


@functools.cache
def shipped_slowdowns() -> SlowdownsFile:
    """What ships."""
    return read_table(SlowdownsFile, read_json(PATH), str(PATH))


def write_slowdowns(file: SlowdownsFile, path: Path = PATH) -> None:
    """Write the file whole or not at all."""
    replace_file(path, (file.model_dump_json(indent=1) + "\n").encode())
