"""What races of our own kernels' tiles say of a chip: coefficients of the physics, a learned correction, an interval.

One TOML file per chip that was raced, beside it the arrays of the correction's trees. A chip without a file takes the
most similar one's coefficients, without the correction and with the interval of a model that is not calibrated.
"""

from collections.abc import Sequence, Set
from dataclasses import dataclass

import numpy as np

from moe_codesign.arrays import F64
from moe_codesign.calibrations.catalogue import UNKNOWN_INTERVAL
from moe_codesign.calibrations.ours import OurCalibration
from moe_codesign.compiler.tile_table import TileTable
from moe_codesign.cost.ours import gpu
from moe_codesign.cost.ours.gpu_work import Work, work_of
from moe_codesign.cost.tile_times import TileTimes
from moe_codesign.domain.dtype import DTYPE_BYTES
from moe_codesign.domain.grouped_gemm import GroupedGemm

LAYER_LOG_WIDTH = 0.2
"""Least width of a layer's 90 % interval: its other kernels are counted, not fitted. Chosen; what it holds is in
results/accuracy/ours.md."""
_BEYOND = 2.0
"""Up to so many times the rows per expert that were raced, the races say something. Chosen."""
INPUTS = 32
"""Inputs of the trees; see :func:`features`."""


@dataclass(frozen=True)
class OurModel:
    """Times of our kernels on one chip.

    Args:
        calibration: of the races on that chip, or on the most similar one.
        chip: name of the chip. Where the calibration is another's, its coefficients serve, but neither its trees nor
            its intervals.
    """

    calibration: OurCalibration
    chip: str

    @property
    def is_transferred(self) -> bool:
        """Whether the races were on another chip."""
        return self.calibration.file.chip != self.chip

    def _width(self, gemm: GroupedGemm) -> float | None:
        """Width of the interval of a GEMM like those that were raced; None for another."""
        dtype, file = _raced_as(gemm), self.calibration.file
        if self.is_transferred or dtype not in file.log_width:
            return None
        rows = gemm.total_rows / max(gemm.active_groups, 1)
        return file.log_width[dtype] if rows <= _BEYOND * file.most_rows[dtype] else None

    def interval(self, gemms: Sequence[GroupedGemm]) -> tuple[float, float]:
        """Low and high over the estimate of a GEMM, or of a layer that is made of several."""
        widths = [self._width(gemm) for gemm in gemms]
        if any(width is None for width in widths):
            return UNKNOWN_INTERVAL
        width = max(width for width in widths if width is not None)
        if len(gemms) > 1:
            width = max(width, LAYER_LOG_WIDTH)
        return float(np.exp(-width)), float(np.exp(width))

    def warning(self, gemms: Sequence[GroupedGemm]) -> str | None:
        """Why the interval is wide, if it is."""
        if self.is_transferred:
            return f"coefficients of {self.calibration.file.chip}: no tiles were raced on this chip"
        if unknown := [dtype for dtype in map(_raced_as, gemms) if dtype not in self.calibration.file.log_width]:
            return f"{unknown[0]} was raced with fewer than two shapes"
        return None if all(map(self._width, gemms)) else "more rows per expert than were raced"

    def tile_times(self, table: TileTable, gemm: GroupedGemm, ideal: Set[str] = frozenset()) -> TileTimes:
        """Time of one grouped GEMM with every tile; ``ideal`` as :func:`moe_codesign.cost.gpu.work_of`."""
        x, trees = self.calibration.coefficients, self.calibration.trees
        if trees is None or self._width(gemm) is None:
            return gpu.tile_times(table, gemm, x, ideal)
        work = work_of(table, gemm)
        times = gpu.times_of(work, x)
        # What a loss costs is the physics' to say, on the scale of the whole.
        wanted = gpu.tile_times(table, gemm, x, ideal) if ideal else times
        return wanted.scaled(np.exp(trees.predict(features(table, gemm, work, times))))


def _raced_as(gemm: GroupedGemm) -> str:
    """float16 runs as bfloat16 does."""
    return "bfloat16" if gemm.dtype == "float16" else gemm.dtype


def features(table: TileTable, gemm: GroupedGemm, w: Work, times: TileTimes) -> F64:
    """[tiles, inputs] that the correction is learned from: sides of the physics, the tile, how it fills the chip."""
    c = table.columns

    def log(values: F64 | float) -> F64:
        return np.asarray(np.log(np.maximum(values, 1e-9)))

    core_us = times.parts_us["compute"] + times.parts_us["latency"]
    sides = (core_us, *(times.parts_us[name] for name in ("memory", "l2", "add")))
    sizes = ("block_m", "block_n", "block_k", "num_warps", "num_stages", "group_m", "split_k")
    inputs: list[F64 | float] = [
        log(times.total_us),
        *(log(side / times.total_us) for side in sides),
        *(log(c[name]) for name in sizes),
        *(c[name] for name in ("persistent", "tma", "swap_ab", "wide_mma", "narrow_mma")),
        float(gemm.op == "down"),
        8.0 * DTYPE_BYTES[gemm.dtype],
        float(gemm.dtype == "fp8_block"),
        log(w.fill),
        w.fill - np.floor(w.fill),
        log(w.busy),
        log(w.fill * w.busy),
        log(w.steps),
        log(gemm.total_rows / max(gemm.active_groups, 1) / c["block_m"]),
        log(w.issue_us),
        log(w.weight_us),
        log(w.rereads_us + 1.0),
    ]
    found = np.empty((len(inputs), len(table)))
    for column, one in zip(found, inputs, strict=True):
        column[:] = one
    return found.T
