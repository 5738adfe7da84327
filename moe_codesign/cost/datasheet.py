"""Times from a data sheet alone: the roofline, as much slower as public kernels are on chips that were measured."""

from dataclasses import dataclass

import numpy as np

from moe_codesign.arrays import F64
from moe_codesign.chips import Chip, HostChip, TpuChip
from moe_codesign.cost.bound import Bound, Bounds
from moe_codesign.cost.estimate import Estimate, doubt_notes
from moe_codesign.cost.occupancy import LAUNCH_US, TPU_LAUNCH_US
from moe_codesign.domain.timing import Timing
from moe_codesign.errors import UserError

HIGH = 3.0
"""The upper end of the interval over the time: 96 % of 5,007 measured layers lie below (see :data:`LAYER`). The lower
end is the roofline itself. Where the sheet is second-hand, both ends lie farther out by the factor that its numbers may
be off by."""


@dataclass(frozen=True)
class Slowdown:
    """How public kernels compare with the roofline.

    Args:
        compute: time over FLOPs at peak.
        memory: time over bytes at full bandwidth.
        fixed_us: what is added, however small the problem.
    """

    compute: float
    memory: float
    fixed_us: float


LAYER = Slowdown(compute=2.25, memory=1.4, fixed_us=50.0)
"""A fused MoE layer on a GPU. ``compute`` is the median of measured time over roofline of 508,684 rows on nine GPUs
(aiconfigurator-core 0.12.0); ``memory`` and ``fixed_us`` (launches, sorting of tokens) fit 5,007 of them best that ran
on one rank, each GPU of the same weight: measured over estimated is 1.00 in the median, 0.68 to 2.77 in nine of ten.
``benchmarks/shipped/datasheet.py`` prints these figures. Taken for accelerators of other kinds too, which nobody
measured."""
GEMM = Slowdown(LAYER.compute, LAYER.memory, LAUNCH_US)
"""A grouped GEMM alone, which is one launch."""
TPU = Slowdown(compute=1 / 0.955, memory=1 / 0.839, fixed_us=TPU_LAUNCH_US)
"""Public grouped matmuls on TPUs: medians of ``matrix_efficiency`` and of ``hbm_efficiency`` below 1 over four TPUs
(calibrations/ragged_dot.toml)."""


SRAM = Slowdown(LAYER.compute, LAYER.memory, fixed_us=16.0)
"""A chip whose memory is on the die. It launches nothing and its time per layer is all but fixed: Llama 70B, of 80
layers, was published at 2,100 tokens/s on a Cerebras CS-3 (https://xyber.substack.com/p/cerebras-cs3-system-at-neurlips-2024)
and at 300 on Groq (https://techpowerup.com/news-tags/Processor?page=3): 6 and 42 us for a layer, attention and network
included. ``fixed_us`` is their geometric mean."""
HOST = Slowdown(LAYER.compute, LAYER.memory, 0.0)
"""On the host nothing is launched."""


def layer_slowdown(chip: Chip) -> Slowdown:
    """How much slower than the roofline a layer is on a chip of this kind."""
    return _of_kind(chip) or LAYER


def gemm_slowdown(chip: Chip) -> Slowdown:
    """How much slower than the roofline one grouped GEMM is on a chip of this kind."""
    return _of_kind(chip) or GEMM


def _of_kind(chip: Chip) -> Slowdown | None:
    if chip.memory.kind == "sram":
        return SRAM
    return TPU if isinstance(chip, TpuChip) else HOST if isinstance(chip, HostChip) else None


def datasheet(bound: Bound, slowdown: Slowdown, note: str) -> Estimate:
    """An estimate from the roofline alone.

    Args:
        bound: the roofline.
        slowdown: how much slower kernels are.
        note: why nothing better is known.

    Raises:
        UserError: the problem moves no bytes and has no work.
    """
    if bound.us <= 0:
        raise UserError("the problem fits in cache and moves no bytes", fix="give more tokens")
    compute, memory = slowdown.compute * bound.compute_us, slowdown.memory * bound.memory_us
    parts = {"compute" if compute >= memory else "memory": max(compute, memory), "launch": slowdown.fixed_us}
    latency = sum(parts.values())
    timing = Timing(
        grade="datasheet",
        latency_us=latency,
        low_us=bound.us,
        high_us=latency * HIGH * bound.doubt,
        bound_us=bound.us,
        limiter=max(parts, key=lambda name: parts[name]),
        parts_us=parts,
    )
    return Estimate(timing, None, (), (f"from the data sheet alone: {note}", *doubt_notes(bound.doubt)))


def datasheet_us(bounds: Bounds, slowdown: Slowdown) -> F64:
    """The times of :func:`datasheet` [problems]."""
    return np.maximum(slowdown.compute * bounds.compute_us, slowdown.memory * bounds.memory_us) + slowdown.fixed_us
