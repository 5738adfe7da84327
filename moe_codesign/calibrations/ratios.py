"""How far two times of one model may err apart: the file that ships, and which of its laws holds for two times.

Errors of two near shapes are partly shared: what the model has wrong of a chip, a stack or a batch it has wrong
of both. So the interval of a ratio is narrower than what two independent intervals make, the more so the nearer the
shapes. The laws are fitted by :mod:`moe_codesign.fitting.ratio_law`.
"""

import functools
import math
import tomllib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import Field

from moe_codesign.arrays import F64
from moe_codesign.calibrations.catalogue import SHIPPED, files
from moe_codesign.domain.timing import Grade
from moe_codesign.tables import Table

FILE = SHIPPED / "ratios.toml"
SIZES = ("hidden_size", "moe_intermediate_size", "num_experts", "num_experts_per_tok", "num_tokens")
"""What the distance of two problems counts, as one rank has it."""


class RatioLaw(Table):
    """Half-width of a log ratio's 90 % interval over that of two independent times (the root of the sum of squares).

    It rises with the distance of the problems, near + (far - near)(1 - exp(-distance / scale)).

    Args:
        near: at distance 0.
        far: of problems that have little in common; 1 is independent.
        scale: the distance at which two thirds of the way are gone.
        tiles: of two tiles of one problem.
        pairs: pairs of measured problems that it is fitted to; 0 where it is chosen.
        source: what those are, or why it is chosen so.
    """

    near: float = Field(gt=0)
    far: float = Field(gt=0)
    scale: float = Field(gt=0)
    tiles: float = Field(gt=0)
    pairs: int = Field(ge=0)
    source: str

    def factor(self, distance: float, *, other_tiles: bool = False) -> float:
        """The factor at a distance, of :func:`distance`; of one problem with ``other_tiles``, ``tiles``."""
        return self.tiles if other_tiles and distance == 0 else float(self.factors(np.array([distance]))[0])

    def factors(self, distances: F64) -> F64:
        """The factor at each distance, float64 [distances]."""
        return np.asarray(self.near + (self.far - self.near) * -np.expm1(-distances / self.scale))


class RatioFile(Table):
    """The file: one law for each way in which a time is known.

    Args:
        stack, stack_elsewhere: a serving stack on a chip with measured times of its own, and on one without.
        ours, ours_elsewhere: the same of our kernels.
        simulated, datasheet: times of these grades.
    """

    format: int
    stack: RatioLaw
    stack_elsewhere: RatioLaw
    ours: RatioLaw
    ours_elsewhere: RatioLaw
    simulated: RatioLaw
    datasheet: RatioLaw


@functools.cache
def shipped(path: Path = FILE) -> RatioFile:
    """The laws that ship."""
    return RatioFile.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))


def law_of(grade: Grade, chip: str, dtype: str, stack: str = "ours") -> RatioLaw | None:
    """The law for two times of one model, chip and data type; None where times are measured, which have no model."""
    laws = shipped()
    if grade == "measured":
        return None
    if grade == "simulated":
        return laws.simulated
    if grade == "datasheet":
        return laws.datasheet
    stems = {path.stem for path, _ in files()}
    if stack == "ours":
        return laws.ours if f"{chip}-ours" in stems else laws.ours_elsewhere
    return laws.stack if f"{chip}-{stack}-{dtype}" in stems else laws.stack_elsewhere


def distance(sizes: Sequence[float], others: Sequence[float]) -> float:
    """How different two problems are: the Euclidean distance of the logarithms of :data:`SIZES`."""
    return math.dist([math.log(size) for size in sizes], [math.log(size) for size in others])
