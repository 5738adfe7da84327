"""What the model of a GPU's time takes from a tile alone, whatever the problem."""

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from moe_codesign.arrays import F64, Mask
from moe_codesign.chips import GpuChip
from moe_codesign.compiler.tile_table import TileTable
from moe_codesign.cost.occupancy import resident_blocks
from moe_codesign.domain.dtype import activation_bytes

_SHARED_BYTES_PER_CYCLE = 128.0
"""What a core reads of its shared memory: 32 banks of 4 bytes (CUDA C++ Programming Guide)."""


@dataclass(frozen=True, eq=False)
class GpuTiles:
    """Columns [tiles] of compiled tiles of one chip, op and data type. Times are at the chip file's rates, in us.

    Args:
        chip: where they run.
        dtype: the operands' data type, which a table does not say.
        columns: the table's.
        width: columns of all matrices of a block.
        resident: blocks that a core holds at once.
        matrix_us, issue_us, shared_us, result_us: of a step's matrix instructions, of issuing it, of reading shared
            memory for it, and of storing a block's results.
        is_wide, is_alone: 1 where matrix instructions are as wide as the chip has them, and where one group of warps
            has them to itself.
        by_descriptor: tiles whose rows GEMM 2 fetches by a descriptor, which knows of no experts.
    """

    chip: GpuChip
    dtype: str
    columns: dict[str, F64]
    width: F64
    resident: F64
    matrix_us: F64
    issue_us: F64
    shared_us: F64
    result_us: F64
    is_wide: F64
    is_alone: F64
    by_descriptor: Mask

    @classmethod
    def of(cls, table: TileTable, dtype: str) -> "GpuTiles":
        """Columns of a table of that data type."""
        chip, c = GpuChip.of(table.chip), table.columns
        cores, clock = float(chip.core.count), chip.core.clock_hz
        matrices = 2 if table.op == "gate_up" else 1
        bm, bn, bk = c["block_m"], c["block_n"], c["block_k"]
        resident = resident_blocks(table)
        # A persistent launch starts this many programs on a core, and no more.
        resident = np.where(c["persistent"] > 0, np.minimum(resident, np.maximum(8 // c["num_warps"], 1)), resident)
        peak = np.where(c["narrow_mma"] > 0, chip.peak(dtype), chip.peak("bfloat16"))
        width = bn * matrices
        groups = np.maximum(c["num_warps"] / 4, 1.0)
        is_hopper = chip.target == "cuda:90"
        # Elsewhere instructions have other shapes, and nothing was fitted.
        shared = is_hopper * 1e6 * _shared_bytes(c, width, groups, activation_bytes(dtype))
        return cls(
            chip=chip,
            dtype=dtype,
            columns=c,
            width=width,
            resident=resident,
            matrix_us=1e6 * 2.0 * bm * bn * bk * matrices / (peak / cores),
            issue_us=1e6 * c["loop_instructions"] * c["num_warps"] / chip.core.schedulers / clock,
            shared_us=shared / (_SHARED_BYTES_PER_CYCLE * clock),
            result_us=bm * width * 4.0 / (1e-6 * chip.memory.l2_bytes_per_s / cores),
            is_wide=c["wide_mma"] if _has_wide_mma(chip) else np.ones(len(bm)),
            # On Blackwell one thread issues the matrix instructions of the whole block.
            is_alone=c["wide_mma"] * (groups <= 1) * is_hopper,
            by_descriptor=(c["tma"] > 0) & (c["swap_ab"] == 0),
        )

    def __len__(self) -> int:
        return len(self.width)

    def one_each(self, rows: npt.NDArray[np.int64]) -> "GpuTiles":
        """One tile for each GEMM: columns [gemms, 1]."""
        columns = {name: values[rows, None] for name, values in self.columns.items()}
        own: dict[str, Any] = {name: getattr(self, name)[rows, None] for name in _OF_TILE}
        return replace(self, columns=columns, **own)


_OF_TILE = tuple(field.name for field in fields(GpuTiles) if field.name not in ("chip", "dtype", "columns"))


def _shared_bytes(c: dict[str, F64], width: F64, groups: F64, item: float) -> F64:
    """What a step's matrix instructions read of shared memory, on Hopper.

    Wide ones read both operands: 64 rows of one, up to 256 of the other, 16 (or 32 bytes) of K; groups of warps lie
    along the first while it has 64 rows for each. Warp-level ones are fed from registers, into which each warp loads
    its 16 rows of one and its share of the other.
    """
    swapped = c["swap_ab"] > 0
    first, second = np.where(swapped, width, c["block_m"]), np.where(swapped, c["block_m"], width)
    along = np.minimum(groups, np.maximum(first / 64, 1.0))
    reach = np.clip(second / (groups / along), 8.0, 256.0)
    wide = np.ceil(first / 64) * np.ceil(second / reach) * (64 + reach)
    warps_along = np.minimum(c["num_warps"], np.maximum(first / 16, 1.0))
    warp_level = c["num_warps"] / warps_along * first + warps_along * second
    return np.asarray(np.where(c["wide_mma"] > 0, wide, warp_level) * c["block_k"] * item)


def _has_wide_mma(chip: GpuChip) -> bool:
    return chip.target in ("cuda:90", "cuda:100", "cuda:103")
