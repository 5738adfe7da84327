"""Grouped matmuls that kernels are compared on, one core of a chip to run them, and what no kernel can beat there."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from moe_codesign.chips import TpuChip
from moe_codesign.models import find_model

MODELS = ("DeepSeek-V3", "Qwen3-30B-A3B", "Qwen3-235B-A22B", "gpt-oss-120b", "Mixtral-8x7B")
ROWS = (512, 8192, 131072)
PUBLISHED = (
    (7168, 1024),
    (7168, 2048),
    (512, 7168),
    (2048, 768),
    (4096, 1536),
    (1536, 4096),
    (4096, 4096),
    (4096, 14336),
)
"""K and N of tokamax' published forward timings, and of those of the gradient to the rows (its own K and N)."""
PUBLISHED_GRADIENTS = ((1024, 7168), (2048, 7168), (7168, 512), (768, 2048), (1536, 4096), (4096, 1536))


@dataclass(frozen=True)
class Problem:
    """``spread`` of the rows over groups: every row to a group at random, equal, or all in a single one."""

    m: int
    k: int
    n: int
    groups: int
    spread: str = "random"
    model: str = ""
    projection: str = ""

    @property
    def sizes(self) -> np.ndarray:
        """Rows of each group."""
        if self.spread == "single":
            return np.array([self.m])
        if self.spread == "equal":
            return np.full(self.groups, self.m // self.groups)
        return np.bincount(np.random.default_rng(0).integers(self.groups, size=self.m), minlength=self.groups)


def projections() -> Iterator[tuple[str, str, int, int, int]]:
    """Model, up or down, K, N and groups."""
    for name in MODELS:
        shape = find_model(name)
        h, i, g = shape.hidden_size, shape.moe_intermediate_size, shape.num_experts
        yield name, "up", h, i, g
        yield name, "down", i, h, g


def problems() -> list[Problem]:
    return [Problem(m, k, n, g, model=name, projection=p) for m in ROWS for name, p, k, n, g in projections()]


def one_core(chip: TpuChip) -> TpuChip:
    cores = chip.core.count
    return chip.model_copy(
        update={
            "core": chip.core.model_copy(update={"count": 1, "devices_per_chip": 1}),
            "memory": chip.memory.model_copy(update={"hbm_bytes_per_s": chip.memory.hbm_bytes_per_s / cores}),
            "peak_flops_per_s": {dtype: peak / cores for dtype, peak in chip.peak_flops_per_s.items()},
        }
    )


def cycles_per_us(chip: TpuChip) -> float:
    """Cycles per microsecond of the compiler's profile."""
    return chip.core.profile_cycles_per_ns * 1e3


def bytes_per_us(chip: TpuChip) -> float:
    return 1e-6 * chip.memory.hbm_bytes_per_s


def bound_us(chip: TpuChip, problem: Problem) -> float:
    """Below which no count can be: the matrix units full all the time, or every byte moved once."""
    cycles = float(problem.m) * problem.k * problem.n / chip.core.products_per_cycle
    moved = 2.0 * (problem.m * (problem.k + problem.n) + int((problem.sizes > 0).sum()) * problem.k * problem.n)
    return max(cycles / cycles_per_us(chip), moved / bytes_per_us(chip))


def geometric_mean(values: list[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))
