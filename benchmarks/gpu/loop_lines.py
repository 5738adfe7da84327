"""What is compared of one kernel on one problem: its inner loop, its registers, and the bytes that it loads."""

import dataclasses
import math
from collections.abc import Iterable

import numpy as np

from moe_codesign.compiler.artifact import GpuFacts
from moe_codesign.domain.grouped_gemm import GroupedGemm
from moe_kernels.tile import TritonTile

LINES = ("instructions", "bytes", "allocated", "shared", "padding")


@dataclasses.dataclass(frozen=True)
class Line:
    """One kernel on one problem. ``instructions``: issued per matrix instruction in the inner loop."""

    kernel: str
    tile: str
    num_warps: int
    time_us: float
    instructions: float
    per_mflop: float
    bytes: float
    registers: float
    shared: float
    padding: float

    @property
    def allocated(self) -> int:
        """Registers that a thread takes from the core: warps get them in units of 256, eight a thread."""
        return 8 * math.ceil(self.registers / 8)

    def row(self, where: str, note: str = "") -> str:
        """A line of the table."""
        return (
            f"| {where} | {self.kernel} | {self.tile} | {self.instructions:.1f} | {self.per_mflop:.0f} "
            f"| {1e3 * self.bytes:.2f} | {self.registers:.0f} ({self.allocated}) "
            f"| {self.shared / 1024:.1f} | {self.padding:.2f} "
            f"| {self.time_us:.1f} | {note} |"
        )

    def worse(self, other: "Line") -> list[str]:
        """Lines on which this is worse than the other."""
        return [name for name in LINES if getattr(self, name) > getattr(other, name) * (1 + 1e-9)]

    def rank(self, other: "Line") -> tuple[int, float]:
        """Order in which our tiles stand beside the other: fewest lines worse, then the fastest."""
        return len(self.worse(other)), self.time_us


def measure(kernel: str, tile: TritonTile, facts: GpuFacts, gemm: GroupedGemm, time_us: float, matrices: int) -> Line:
    rows = gemm.rows[gemm.rows > 0]
    row_tiles = np.ceil(rows / tile.block_m)
    width = gemm.n * gemm.matrices
    block_n = tile.block_n * matrices
    # A descriptor takes whole blocks of rows in expert order; masked and gathered loads take the rows there are.
    whole = tile.tma and not tile.swap_ab and gemm.op == "down" and kernel == "ours"
    loaded_rows = float((row_tiles * tile.block_m).sum()) if whole else float(rows.sum())
    loaded = 2.0 * gemm.k * (loaded_rows * math.ceil(width / block_n) + float(row_tiles.sum()) * width)
    loop_flops = 2.0 * tile.block_m * block_n * tile.block_k
    # The compiler may unroll: matrix instructions of one iteration of K, from their share of the loop.
    issued = facts.loop_instructions * tile.num_warps
    return Line(
        kernel=kernel,
        tile=tile.label(),
        num_warps=tile.num_warps,
        time_us=time_us,
        instructions=facts.loop_instructions / max(facts.loop_matrix, 1),
        per_mflop=1e6 * issued / loop_flops,
        bytes=loaded / gemm.flops,
        registers=facts.registers,
        shared=facts.shared_bytes,
        padding=float((row_tiles * tile.block_m).sum() / rows.sum()),
    )


def decode_bytes(gemms: Iterable[GroupedGemm], lines: Iterable[Line]) -> float:
    """Bytes that both GEMMs load and store at one token over the bytes that nobody can avoid."""
    gemms, lines = list(gemms), list(lines)
    moved = needed = 0.0
    for gemm, one in zip(gemms, lines, strict=True):
        moved += one.bytes * gemm.flops + 2.0 * gemm.total_rows * gemm.n
        # Per row tile: its expert, first row and end; per row its token or slot and weight.
        moved += 24.0 * gemm.total_rows
        needed += gemm.weight_bytes
    hidden = gemms[0].k
    return moved / (needed + 2 * 2.0 * hidden)
