"""Measuring jobs that go wrong. Importable by name, as the measuring process needs them."""

from moe_codesign.arrays import F64
from moe_codesign.domain.failure import Failure
from moe_codesign.domain.tile_pair import TilePair
from moe_codesign.measure import LayerJob, Measurement, worker
from moe_codesign.measure.draws import Draw
from moe_codesign.measure.presence import Platform
from moe_kernels.tile import BlockedTile

measure = worker._measure


def pair(number: int) -> TilePair:
    tile = BlockedTile(tile_m=number, tile_k=128, tile_n=128)
    return TilePair(tile, tile)


BREAKS_THE_DEVICE = pair(2)
JOB = LayerJob(
    rows=(3, 0, 5), tokens=6, hidden_size=32, intermediate_size=16, gated=True, budget_s=0.01,
    candidates=(pair(1), BREAKS_THE_DEVICE, pair(3), pair(4)),
)  # fmt: skip


class StickyDevice:
    """Once a kernel has faulted, every later call of the process fails, as on a GPU."""

    name, software = "sticky", "none"

    def __init__(self) -> None:
        self.broken = False

    def load(self, job: LayerJob) -> None:
        self.shape = (job.tokens, job.hidden_size)

    def weights_checksum(self) -> int:
        return 0

    def draw(self, draw: Draw) -> None:
        self.drawn = draw

    def changed(self) -> bool:
        return False

    def expected(self, draw: Draw) -> F64:
        return draw.generator().random(self.shape)

    def launch(self, tiles: TilePair) -> float:
        self.broken |= tiles == BREAKS_THE_DEVICE
        if self.broken:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return 10.0

    def output(self, tiles: TilePair) -> F64:
        return self.expected(self.drawn) * 1.001


def measure_on_sticky(job: LayerJob, platform: Platform) -> list[Measurement | Failure]:
    worker._device = worker._device or StickyDevice()
    return measure(job, platform)
