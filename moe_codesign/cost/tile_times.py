"""The times of grouped GEMMs with tiles."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moe_codesign.arrays import F64


@dataclass(frozen=True)
class TileTimes:
    """Times and their parts, all in us: per tile [tiles], or per GEMM and tile [gemms, tiles]."""

    total_us: F64
    parts_us: dict[str, F64]

    def scaled(self, factor: F64) -> "TileTimes":
        """All of it times a factor per tile."""
        return self._each(lambda us: us * factor)

    def of(self, gemm: int) -> "TileTimes":
        """One GEMM's [tiles], of [gemms, tiles]."""
        return self._each(lambda us: us[gemm])

    def at(self, tiles: npt.NDArray[np.int64]) -> "TileTimes":
        """One tile's of each GEMM, [gemms], of [gemms, tiles]."""
        return self._each(lambda us: np.take_along_axis(us, tiles[:, None], axis=1)[:, 0])

    @classmethod
    def joined(cls, times: Sequence["TileTimes"]) -> "TileTimes":
        """Those of some GEMMs, then those of others."""
        names = times[0].parts_us
        parts = {name: np.concatenate([one.parts_us[name] for one in times]) for name in names}
        return cls(np.concatenate([one.total_us for one in times]), parts)

    def _each(self, change: Callable[[F64], F64]) -> "TileTimes":
        return TileTimes(change(self.total_us), {name: change(us) for name, us in self.parts_us.items()})
