"""What the model of a TPU's time takes from a tile alone, whatever the problem."""

from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt

from moe_codesign.arrays import F64
from moe_codesign.chips import TpuChip
from moe_codesign.compiler.artifact import TpuFacts
from moe_codesign.compiler.tile_table import TileTable


@dataclass(frozen=True, eq=False)
class TpuTiles:
    """Columns [tiles] of compiled tiles of one chip and op: the tile's own fields, and the program's cycles.

    The cycles are those of :class:`moe_codesign.compiler.artifact.TpuFacts`.
    """

    chip: TpuChip
    tile_m: F64
    tile_n: F64
    tile_k: F64
    bucket_m: F64
    rows_outer: F64
    cores: F64
    prologue_cycles: F64
    fixed_cycles: F64
    bucket_cycles: F64
    depth_fixed_cycles: F64
    depth_bucket_cycles: F64
    issue_cycles: F64

    @classmethod
    def of(cls, table: TileTable) -> "TpuTiles":
        """Columns of a table."""
        facts = [one for one in table.facts if isinstance(one, TpuFacts)]
        own = {name: table.columns[name] for name in _TILE}
        cycles = {name: np.array([getattr(one, name) for one in facts], dtype=float) for name in _CYCLES}
        return cls(chip=TpuChip.of(table.chip), **own, **cycles)

    def __len__(self) -> int:
        return len(self.tile_m)

    def one_each(self, rows: npt.NDArray[np.int64]) -> "TpuTiles":
        """One tile for each GEMM: columns [gemms, 1]."""
        return replace(self, **{name: getattr(self, name)[rows, None] for name in (*_TILE, *_CYCLES)})


_CYCLES = tuple(field.name for field in fields(TpuTiles) if field.name.endswith("_cycles"))
_TILE = tuple(field.name for field in fields(TpuTiles) if field.name not in ("chip", *_CYCLES))
