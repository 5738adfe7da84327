"""Coefficients and the file of a serving stack on one chip for one data type."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

import numpy as np

from moe_codesign.arrays import F64
from moe_codesign.tables import Table


@dataclass(frozen=True)
class StackCoefficients:
    """What is fitted, all positive. The defaults are no more than where a fit begins.

    Args:
        overlap: exponent of the power mean that joins core, HBM and L2 time, over 2.
        matrix: time of a step's matrix instructions over that at the chip's peak.
        step_us: a step's time that is not matrix work, per resident block.
        latency_us: of a load from HBM; num_stages - 1 of them are in flight. near_us: of one from the L2.
        block_us: start and end of a block.
        l2_keep: share of the L2 that keeps weights for the next band of row tiles, and from one run to the next.
        held: least share of the weights that is fetched, however small they are.
        memory: time of HBM traffic over that at the chip file's bandwidth. l2: the same of L2 traffic.
        elementwise: time of activation and sum over that of their bytes at HBM bandwidth.
        cached: share of that time, and of the zeros', where the L2 holds what they read and write.
        align_ns: routing and alignment per token-expert pair. expert_ns: per local expert.
        launch_us: all launches.
        reread: share of a forgotten weight that is fetched again per further band.
        zeros: time of writing zeros for choices of other ranks over that of their bytes at HBM bandwidth.
        zero_block_ns: a block that does so, per core. empty_ns: one that finds nothing to do.
        short: extra share of HBM time where a tile reads half a line of 128 bytes from each row of the weights.
        narrow_up, narrow_down: extra share of GEMM 1 and GEMM 2 where rows of I elements are no multiple of 16 bytes.
    """

    overlap: float = 1.0
    matrix: float = 1.35
    step_us: float = 0.05
    latency_us: float = 0.8
    near_us: float = 0.25
    block_us: float = 1.65
    l2_keep: float = 0.5
    held: float = 0.37
    memory: float = 1.2
    l2: float = 1.2
    elementwise: float = 0.37
    cached: float = 0.5
    align_ns: float = 0.14
    launch_us: float = 15.0
    expert_ns: float = 1.35
    reread: float = 0.14
    zeros: float = 0.5
    zero_block_ns: float = 50.0
    empty_ns: float = 3.7
    short: float = 0.1
    narrow_up: float = 1.0
    narrow_down: float = 1.0

    def logs(self) -> F64:
        return np.asarray(np.log(np.array(dataclasses.astuple(self))))

    @classmethod
    def from_logs(cls, logs: F64) -> "StackCoefficients":
        return cls(*np.exp(logs).tolist())


FORMAT: Literal[2] = 2


class Accuracy(Table):
    """Absolute relative error on held-out shapes, in percent: mean, median, 90th percentile."""

    mape: float
    median: float
    p90: float
    physics_mape: float
    physics_median: float
    interval_coverage: float
    rows: int
    shapes: int


class StackFile(Table):
    """The TOML file. ``format`` changes with the coefficients and the inputs of the trees, which mean nothing to
    another version's."""

    format: Literal[2] = FORMAT
    chip: str
    stack: str
    dtype: str
    source: str
    version: str
    rows: int
    shapes: int
    unnamed_routing: int = 0
    """Fitted rows that named no routing and were read as the default one."""
    left_out: dict[str, int]
    correction_share: float
    coefficients: dict[str, float]
    interval: tuple[float, float, float]
    fitted_range: dict[str, tuple[float, float]]
    tuned: tuple[str, ...] = ()
    """experts-width of a rank for which the measured stack had a tuned file that was not published: see
    cost/stacks/conventions.py."""
    all_choices_here: dict[str, bool] = {}
    """By hidden-experts-topk, whether ranks ran all choices; see cost/stacks/conventions.py."""
    held_out: Accuracy | None = None
