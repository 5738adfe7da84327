"""The tiles of one layer."""

from typing import NamedTuple

from moe_kernels.tile import TileConfig


class TilePair(NamedTuple):
    """A tile for each grouped GEMM of a layer: ``up`` (the gate and up projections) and ``down``."""

    up: TileConfig
    down: TileConfig

    def label(self) -> str:
        """How tables print it."""
        return f"{self.up.label()} | {self.down.label()}"
