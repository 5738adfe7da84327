"""What races of our own kernels' tiles say of a chip: coefficients of the physics, a learned correction, an interval.

One TOML file per chip that was raced, beside it the arrays of the correction's trees. A chip without a file takes the
most similar one's coefficients, without the correction and with the interval of a model that is not calibrated.
"""

from collections.abc import Set
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moe_codesign.arrays import F64, Mask
from moe_codesign.calibrations.catalogue import UNKNOWN_INTERVAL
from moe_codesign.calibrations.ours import OurCalibration
from moe_codesign.compiler.tile_table import TileTable
from moe_codesign.cost.ours import gpu
from moe_codesign.cost.ours.gpu_tiles import GpuTiles
from moe_codesign.cost.ours.gpu_work import Work, work_of
from moe_codesign.cost.tile_times import TileTimes
from moe_codesign.domain.dtype import DTYPE_BYTES
from moe_codesign.domain.grouped_gemm import GroupedGemm
from moe_codesign.domain.grouped_gemms import GroupedGemms

LAYER_LOG_WIDTH = 0.2
"""Least width of a layer's 90 % interval: its other kernels are counted, not fitted. Chosen; what it holds is in
results/accuracy/ours.md."""
_BEYOND = 2.0
"""Up to so many times the rows per expert that were raced, the races say something. Chosen."""
INPUTS = 32
"""Inputs of the trees; see :func:`features`."""
_OF_TILE = (*range(5, 20), 26)
"""Those that say nothing of a problem but its op and data type."""


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

    def raced(self, gemms: GroupedGemms) -> Mask:
        """[gemms], which are like those that were raced: in type, and up to some more rows per expert."""
        dtype, file = _raced_as(gemms.dtype), self.calibration.file
        if self.is_transferred or dtype not in file.log_width:
            return np.zeros(len(gemms), dtype=bool)
        return np.asarray(gemms.mean_rows[:, 0] <= _BEYOND * file.most_rows[dtype])

    def interval(self, gemms: GroupedGemms, *, of_layer: bool) -> tuple[F64, F64]:
        """Low and high over the estimate, [gemms]: of a GEMM, or of the layer whose GEMM 1 or 2 it is."""
        width = self.calibration.file.log_width.get(_raced_as(gemms.dtype), 0.0)
        if of_layer:
            width = max(width, LAYER_LOG_WIDTH)
        raced, (low, high) = self.raced(gemms), UNKNOWN_INTERVAL
        return np.where(raced, np.exp(-width), low), np.where(raced, np.exp(width), high)

    def warnings(self, gemms: GroupedGemms) -> dict[int, str]:
        """Why intervals are wide, by place of the GEMM: of those that are not :meth:`raced`."""
        dtype = _raced_as(gemms.dtype)
        text = "more rows per expert than were raced"
        if self.is_transferred:
            text = f"coefficients of {self.calibration.file.chip}: no tiles were raced on this chip"
        elif dtype not in self.calibration.file.log_width:
            text = f"{dtype} was raced with fewer than two shapes"
        return dict.fromkeys(np.flatnonzero(~self.raced(gemms)).tolist(), text)

    def times(self, tiles: GpuTiles, gemms: GroupedGemms, ideal: Set[str] = frozenset()) -> TileTimes:
        """Times of grouped GEMMs [gemms, tiles]; arguments as of :func:`moe_codesign.cost.ours.gpu_work.work_of`."""
        x, trees = self.calibration.coefficients, self.calibration.trees
        work = work_of(tiles, gemms)
        times = gpu.times_of(tiles, work, x)
        # What a loss costs is the physics' to say, on the scale of the whole.
        wanted = gpu.times_of(tiles, work_of(tiles, gemms, ideal), x, ideal) if ideal else times
        raced = self.raced(gemms)
        if trees is None or not raced.any():
            return wanted
        inputs = features(tiles, gemms, work, times)
        inputs = inputs if raced.all() else inputs[:, raced]
        shared = tiles.width.ndim == 1
        correction = trees.predict_tiles(inputs, _OF_TILE) if shared else trees.predict(inputs[:, :, 0].T)[:, None]
        factor = np.ones(times.total_us.shape)
        factor[raced] = np.exp(correction)
        return wanted.scaled(factor)

    def tile_times(self, table: TileTable, gemm: GroupedGemm, ideal: Set[str] = frozenset()) -> TileTimes:
        """Time of one grouped GEMM with every tile of a table [tiles]."""
        return self.times(GpuTiles.of(table, gemm.dtype), GroupedGemms.of([gemm]), ideal).of(0)


def _raced_as(dtype: str) -> str:
    """float16 runs as bfloat16 does."""
    return "bfloat16" if dtype == "float16" else dtype


def features(tiles: GpuTiles, gemms: GroupedGemms, w: Work, times: TileTimes) -> npt.NDArray[np.float32]:
    """[inputs, gemms, tiles] of the correction: sides of the physics, the tile, how it fills the chip.

    Inputs of :data:`_OF_TILE` are the same for every GEMM.
    """
    c = tiles.columns

    def log(values: F64) -> F64:
        return np.asarray(np.log(np.maximum(values, 1e-9)))

    core_us = times.parts_us["compute"] + times.parts_us["latency"]
    sides = (core_us, *(times.parts_us[name] for name in ("memory", "l2", "add")))
    sizes = ("block_m", "block_n", "block_k", "num_warps", "num_stages", "group_m", "split_k")
    inputs: list[F64 | float] = [
        log(times.total_us),
        *(log(side / times.total_us) for side in sides),
        *(log(c[name]) for name in sizes),
        *(c[name] for name in ("persistent", "tma", "swap_ab", "wide_mma", "narrow_mma")),
        float(gemms.op == "down"),
        8.0 * DTYPE_BYTES[gemms.dtype],
        float(gemms.dtype == "fp8_block"),
        log(w.fill),
        w.fill - np.floor(w.fill),
        log(w.busy),
        log(w.fill * w.busy),
        log(w.steps),
        log(gemms.mean_rows / c["block_m"]),
        log(tiles.issue_us),
        log(w.weight_us),
        log(w.rereads_us + 1.0),
    ]
    found = np.empty((len(inputs), *times.total_us.shape), dtype=np.float32)
    for column, one in zip(found, inputs, strict=True):
        column[:] = one
    return found
