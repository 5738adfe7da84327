"""One step of a compiled TPU program: what each unit takes of it, and what would help."""

from dataclasses import dataclass

import numpy as np

from moe_codesign.chips import TpuChip
from moe_codesign.compiler.artifact import TpuFacts
from moe_codesign.compiler.request import Request
from moe_codesign.domain.dtype import DTYPE_BYTES


@dataclass(frozen=True)
class Step:
    """One step of a tile: what each resource takes of it, in the profile's cycles, if nothing else were in its way."""

    rows: int
    k: int
    columns: int
    cycles: dict[str, float]

    @property
    def longest(self) -> float:
        return max(self.cycles.values())

    @property
    def limiter(self) -> str:
        return max(self.cycles, key=lambda name: self.cycles[name])

    def describe(self) -> str:
        """Its shape, and how much of its longest the matrix units are at work."""
        busy = self.cycles["matrix units"] / self.longest
        return f"{self.rows} rows x {self.k} deep x {self.columns} columns, matrix units at work {busy:.0%} of it"

    @property
    def advice(self) -> str:
        """What would help most."""
        match self.limiter:
            case "HBM":
                return "more rows a visit (tile_m), or rows_outer=false where groups have several visits"
            case "matrix units":
                return "nothing: they are full"
        fixed = self.cycles["issue and drain"] - self.cycles["matrix units"]
        if fixed > 0.1 * self.longest:
            return "a step with more work for its fixed part: larger tile_n or tile_m, whole depth"
        return "little: the matrix units are nearly full"


def step_of(request: Request, facts: TpuFacts, chip: TpuChip) -> Step:
    """A full step of a compiled tile at the depth of its deepest probe, with weights of a new group."""
    tile = request.tile.as_dict()
    rows, columns = int(tile["tile_m"]), int(tile["tile_n"])
    k = max(int(name.split("x")[2]) for name in facts.cycles)
    matrices = 2 if request.op == "gate_up" else 1
    side = chip.core.matrix_side
    clock = chip.core.profile_cycles_per_ns * 1e9
    padded = rows * np.ceil(k / side) * side * np.ceil(columns / side) * side * matrices
    item = DTYPE_BYTES[request.dtype]
    moved = (rows * k + k * columns * matrices + rows * columns) * item
    return Step(
        rows,
        k,
        columns,
        {
            "matrix units": padded / chip.core.products_per_cycle,
            "issue and drain": facts.step_cycles(np.ceil(rows / min(int(tile["bucket_m"]), rows)), k),
            "HBM": moved / (chip.memory.hbm_bytes_per_s / chip.core.count) * clock,
        },
    )
