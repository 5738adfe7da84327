"""The time of one grouped GEMM with each tile of a table."""

from dataclasses import dataclass

from moe_codesign.arrays import F64


@dataclass(frozen=True)
class TileTimes:
    """Per tile: time and its parts, all in us."""

    total_us: F64
    parts_us: dict[str, F64]

    def scaled(self, factor: F64) -> "TileTimes":
        """All of it times a factor per tile."""
        return TileTimes(self.total_us * factor, {name: us * factor for name, us in self.parts_us.items()})
