"""Coefficients and the file of our own kernels on one chip."""

import functools
from dataclasses import astuple, dataclass
from typing import Literal, Self

import numpy as np

from moe_codesign.arrays import F64
from moe_codesign.calibrations.trees import SymmetricTrees
from moe_codesign.tables import Table


@dataclass(frozen=True)
class OurCoefficients:
    """What is fitted, all positive. The defaults are the H100's (results/accuracy/ours.md).

    Args:
        overlap: exponent of the power mean of core, HBM, L2 and add time, over 1.
        matrix: time of a step's matrix instructions over that at the chip's peak.
        alone: extra share of it where one group of four warps has wide matrix instructions to itself.
        legacy: of warp-level matrix instructions on a chip that has wide ones, over peak.
        issue: time to issue an iteration's instructions over one a scheduler and cycle.
        shared: time that matrix instructions read shared memory over 128 bytes a cycle.
        latency: of a load, in units of the chip file's; num_stages - 1 are in flight.
        fetch: time to fetch a step's operands over a core's part of the L2's bandwidth.
        edge: start and end of a block, in units of memory latency.
        epilogue: time to store a block's results over that of as many float32 at a core's part of the L2's bandwidth.
        waves: weight of whole waves over their fraction; over 1: the last one is slower than its share.
        memory: time of HBM traffic over that at the chip file's bandwidth.
        rows: the same of the rows that are read and written, over that of weights.
        reread: share of a forgotten weight that is fetched again per further band.
        l2: time of L2 traffic over that at the chip file's bandwidth. add: the same of atomic adds.
        launch_us: of the kernel.
    """

    overlap: float = 1.96
    matrix: float = 0.99
    alone: float = 0.6
    legacy: float = 2.8
    issue: float = 2.0
    shared: float = 1.2
    latency: float = 2.9
    fetch: float = 0.73
    edge: float = 3.4
    epilogue: float = 3.0
    waves: float = 1.3
    memory: float = 1.05
    rows: float = 2.8
    reread: float = 0.46
    l2: float = 0.75
    add: float = 9.7
    launch_us: float = 7.2

    def logs(self) -> F64:
        return np.asarray(np.log(np.array(astuple(self))))

    @classmethod
    def from_logs(cls, logs: F64) -> Self:
        return cls(*np.exp(logs).tolist())


FORMAT: Literal[1] = 1


class OurFile(Table):
    """The TOML file. ``format`` changes with the coefficients and with the inputs of the trees.

    Args:
        log_width: of a GEMM's 90 % interval, on the logarithm of the time, by type that was raced with several shapes.
        most_rows: per expert that has any, by the same types: what was raced.
        races: GEMMs of which all tiles were raced. rows: tiles timed.
        unnamed_routing: rows that named no routing and were read as the default one.
        error, regret: on models left out: mean error of a time, mean loss of the tile named best; physics alone beside.
    """

    format: Literal[1] = FORMAT
    chip: str
    source: str
    compiled_by: str
    races: int
    rows: int
    unnamed_routing: int = 0
    log_width: dict[str, float]
    most_rows: dict[str, float]
    coefficients: dict[str, float]
    error: float
    regret: float
    physics_error: float
    physics_regret: float


@dataclass(frozen=True)
class OurCalibration:
    """What races of our kernels' tiles on one chip say: the file, and the correction's trees.

    Args:
        file: coefficients, and the widths of intervals by data type.
        trees: the learned correction; None where no data type was raced with two shapes, which no written file is.
    """

    file: OurFile
    trees: SymmetricTrees | None

    @functools.cached_property
    def coefficients(self) -> OurCoefficients:
        """The coefficients of the physics."""
        return OurCoefficients(**self.file.coefficients)
