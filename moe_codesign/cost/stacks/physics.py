"""A serving stack's whole fused MoE operation as named physical terms, over columns of problems.

What measured latencies cover: route, align, GEMM 1, activation, GEMM 2, sum over k, each a kernel in one CUDA graph.
Per GEMM the cores' time (tiles in waves, each step the longer of matrix work and load latency over the pipeline's
depth), HBM's and the L2's run side by side; a power mean joins them. A load takes the L2's latency where the L2 still
holds the weights from the run before, HBM's where it does not. Elementwise kernels, alignment, zeros that are written
for choices of other ranks, blocks that find nothing to do and launches are added. Coefficients have no units where
they scale a chip file's number, so that they can be carried to another chip.
"""

import dataclasses
from collections.abc import Mapping, Set
from dataclasses import dataclass

import numpy as np

from moe_codesign.arrays import F64
from moe_codesign.calibrations.stacks import Coefficients
from moe_codesign.chips import GpuChip
from moe_codesign.cost.stacks.columns import Columns
from moe_codesign.cost.stacks.default_rules import default_tiles
from moe_codesign.cost.stacks.tiles import with_tuned
from moe_codesign.domain.dtype import DTYPE_BYTES
from moe_codesign.formats.tuned_files import BLOCK_M, StackTiles, Tuned

TERMS = (
    "tiles",
    "waves",
    "residency",
    "latency",
    "near",
    "l2",
    "reread",
    "elementwise",
    "cached",
    "remote",
    "align",
    "short",
    "narrow",
)
"""What an ablation can leave out."""
_LINE_BYTES = 128.0
_FITTED_REGISTERS = 65536
"""Registers of a core of every chip whose rows the shipped coefficients were fitted to. A core with more (AMD's) is
counted with these: what it does with the rest is in no row."""


@dataclass(frozen=True)
class _Gemm:
    """What the coefficients are multiplied with, per row."""

    waves: F64
    steps: F64
    busy: F64
    matrix_us: F64
    stages: F64
    weight_us: F64
    weight_bytes: F64
    bands: F64
    other_us: F64
    l2_us: F64
    short: F64


@dataclass(frozen=True)
class _After:
    """What follows a GEMM: elementwise work on its result, and zeros in it for choices of other ranks."""

    bytes: F64
    elementwise_us: F64
    zeros_us: F64


@dataclass(frozen=True)
class Terms:
    """Everything of the model that does not depend on coefficients."""

    gemms: tuple[_Gemm, _Gemm]
    after: tuple[_After, _After]
    l2_bytes: float
    zero_blocks: F64
    empty_blocks: F64
    pairs: F64
    local_experts: F64
    narrow: F64
    far: F64
    """1: loads take as long from the L2 as from HBM (an ablation)."""
    tiles: StackTiles
    blocks: F64

    @property
    def weight_bytes(self) -> F64:
        """Of both GEMMs' active experts: what the L2 would have to keep from one run to the next."""
        return self.gemms[0].weight_bytes + self.gemms[1].weight_bytes


def bound_us(columns: Columns, chip: GpuChip, dtype: str) -> F64:
    """No run is faster, as :func:`moe_codesign.cost.problem.layer_bound`: active weights once, tokens in and out once.

    Raises:
        UserError: the chip has no matrix units for the dtype.
    """
    c, peak = columns, chip.peak(dtype)
    item, bandwidth = DTYPE_BYTES[dtype], 1e-6 * chip.memory.hbm_bytes_per_s
    flops = 2 * c.rows * c.hidden * (c.up_width + c.width)
    fewest = np.where(c.local_experts == c.experts, c.num_tokens, c.largest)
    weights = c.active * c.hidden * (c.up_width + c.width) * item
    least_bytes = weights + 2 * np.minimum(fewest, c.rows) * c.hidden * item
    return np.maximum(1e6 * flops / peak, least_bytes / bandwidth)


def stack_tiles(columns: Columns, stack: str, dtype: str, tuned: Tuned | None = None) -> StackTiles:
    """What the stack launches: a tuned tile where there is one, else its default rule's.

    Raises:
        UserError: the stack is unknown.
    """
    tiles = default_tiles(stack, dtype, columns.num_tokens, columns.local_experts)
    return with_tuned(tiles, tuned or {}, columns.num_tokens, columns.local_experts, columns.width)


def terms(columns: Columns, chip: GpuChip, dtype: str, tiles: StackTiles, off: Set[str] = frozenset()) -> Terms:
    """Work of each kernel of the operation.

    Args:
        columns: problems. chip, dtype: where and of what.
        tiles: that are launched; see :func:`stack_tiles`.
        off: names of TERMS to leave out.

    Raises:
        UserError: the chip has no matrix units for the dtype.
    """
    peak = chip.peak(dtype)
    c, item = columns, DTYPE_BYTES[dtype]
    bandwidth = 1e-6 * chip.memory.hbm_bytes_per_s
    launched = np.choose(np.searchsorted(BLOCK_M, tiles.block_m), c.row_tiles)
    row_tiles = np.maximum(c.rows / tiles.block_m, 1e-9) if "tiles" in off else launched
    resident = np.ones(len(c)) if "residency" in off else _resident(tiles, chip, item)
    cores = float(chip.core.count)
    gemms = []
    distinct = np.minimum(c.num_tokens, c.rows)
    all_blocks = np.zeros(len(c))
    shapes = ((c.hidden, c.up_width, distinct * c.hidden * item), (c.width, c.hidden, c.rows * c.width * item))
    for k, n, read_bytes in shapes:
        across = n / tiles.block_n if "tiles" in off else np.ceil(n / tiles.block_n)
        steps = k / tiles.block_k if "tiles" in off else np.ceil(k / tiles.block_k)
        blocks = row_tiles * across
        all_blocks += blocks
        fill = blocks / (cores * resident)
        # The last wave is rarely in step with the others: halfway between whole waves and none.
        waves = np.maximum(fill, 1.0) if "waves" in off else np.where(fill < 1, 1.0, (np.ceil(fill) + fill) / 2)
        traffic = blocks * steps * (tiles.block_m + tiles.block_n) * tiles.block_k * item
        weights = c.active * k * n * item
        gemms.append(
            _Gemm(
                waves=waves,
                steps=steps,
                busy=np.clip(blocks / cores, 1.0, resident),
                matrix_us=1e6 * 2 * tiles.block_m * tiles.block_n * tiles.block_k / (peak / cores),
                stages=np.full(len(c), np.inf) if "latency" in off else tiles.num_stages,
                weight_us=weights / bandwidth,
                weight_bytes=weights,
                bands=np.maximum(row_tiles / np.maximum(c.active, 1) / tiles.group_m, 1.0) - 1,
                other_us=(read_bytes + c.rows * n * 2.0) / bandwidth,
                # Weights lie along k. A line that is asked for in parts is fetched in parts.
                short=np.maximum(_LINE_BYTES / (tiles.block_k * item) - 1, 0.0) * ("short" not in off),
                l2_us=0 * traffic if "l2" in off else 1e6 * traffic / chip.memory.l2_bytes_per_s,
            )
        )
    if "reread" in off:
        gemms = [dataclasses.replace(g, bands=0 * g.bands) for g in gemms]
    pairs = c.num_tokens * c.top_k
    others = np.maximum(pairs - c.rows, 0.0)
    across_both = sum(np.ceil(n / tiles.block_n) for _, n, _ in shapes)
    zero_blocks = np.ceil(others / tiles.block_m)
    # The grid is a bound: programs past the rows that there are find nothing to do.
    most = np.minimum(pairs + c.experts * (tiles.block_m - 1), pairs * tiles.block_m) / tiles.block_m
    empty = np.maximum(most - launched - zero_blocks, 0) * across_both / cores
    here = 0.0 if "remote" in off else 1.0
    alike = 0.0 if "elementwise" in off else 1.0
    # Activation and sum run over every choice of the tokens that entered, whoever's expert it is.
    touched = (pairs * (c.up_width + c.width), pairs * c.hidden + c.num_tokens * c.hidden)
    after = [
        _After(
            bytes=np.full(len(c), np.inf) if "cached" in off else 2.0 * pairs * n,
            elementwise_us=alike * 2.0 * values / bandwidth,
            zeros_us=here * 2.0 * others * n / bandwidth,
        )
        for (_, n, _), values in zip(shapes, touched, strict=True)
    ]
    return Terms(
        gemms=(gemms[0], gemms[1]),
        after=(after[0], after[1]),
        l2_bytes=chip.memory.l2_bytes,
        zero_blocks=here * zero_blocks * across_both / cores,
        empty_blocks=here * empty,
        pairs=0 * pairs if "align" in off else pairs,
        local_experts=c.local_experts,
        narrow=np.zeros(len(c)) if "narrow" in off else (c.width * item % 16 != 0).astype(float),
        far=np.full(len(c), float("near" in off)),
        tiles=tiles,
        blocks=all_blocks,
    )


def _resident(tiles: StackTiles, chip: GpuChip, item: float) -> F64:
    """Blocks of a core, by shared memory for the pipeline's stages and by registers for the accumulator."""
    threads = tiles.num_warps * chip.core.warp_size
    shared = tiles.num_stages * (tiles.block_m + tiles.block_n) * tiles.block_k * item + 1024
    # An estimate, high beside the plain kernel of results/triton_inner_loops.md (48 and once the accumulator): the
    # shipped coefficients were fitted with it, so it changes with them.
    registers = np.minimum(255, 70 + 1.3 * tiles.block_m * tiles.block_n / threads)
    of_core = min(chip.core.registers, _FITTED_REGISTERS)
    most = np.minimum(chip.core.shared_bytes // shared, of_core // (threads * registers))
    return np.asarray(np.maximum(most, 1.0))


def parts_us(x: Coefficients, t: Terms) -> dict[str, F64]:
    """Time by name; their sum is the operation's. ``gemm 1`` and ``gemm 2`` join core, HBM and L2 time."""
    p = 2.0 + x.overlap
    found: dict[str, F64] = {}
    for name, g, narrow in (("gemm 1", t.gemms[0], x.narrow_up), ("gemm 2", t.gemms[1], x.narrow_down)):
        sides = np.stack(list(_sides(x, g, t).values()))
        # Over the longest: a fit may try exponents that no number is raised to.
        longest = sides.max(axis=0)
        found[name] = longest * ((sides / longest) ** p).sum(axis=0) ** (1 / p) * (1 + narrow * t.narrow)
    lost = [_forgotten(x, t, after.bytes) for after in t.after]
    slow = [share + (1 - share) * min(x.cached, 1.0) for share in lost]
    first, second = t.after
    found["elementwise"] = x.elementwise * (slow[0] * first.elementwise_us + slow[1] * second.elementwise_us)
    zeros_us = slow[0] * first.zeros_us + slow[1] * second.zeros_us
    found["other ranks' rows"] = x.zeros * zeros_us + 1e-3 * x.zero_block_ns * t.zero_blocks
    found["align"] = 1e-3 * (x.align_ns * t.pairs + x.expert_ns * t.local_experts + x.empty_ns * t.empty_blocks)
    found["launch"] = np.full(len(t.pairs), x.launch_us)
    return found


def limiters(x: Coefficients, t: Terms, parts: Mapping[str, F64]) -> list[str]:
    """What takes most of each problem: a side of its GEMMs, or one of the parts (:func:`parts_us`) beside them."""
    first, second = (_sides(x, g, t) for g in t.gemms)
    sides = {name: first[name] + second[name] for name in first}
    rest = {name: value for name, value in parts.items() if not name.startswith("gemm")}
    names = [*sides, *rest]
    order = np.argmax(np.stack([*sides.values(), *rest.values()]), axis=0)
    return [names[i] for i in order.tolist()]


def _sides(x: Coefficients, g: _Gemm, t: Terms) -> dict[str, F64]:
    forgotten = _forgotten(x, t, t.weight_bytes)
    # The runs before left the L2 as it is, so small weights are near.
    near = np.where(t.far > 0, x.latency_us, min(x.near_us, x.latency_us))
    latency = near + (x.latency_us - near) * forgotten
    # Resident blocks share a core's matrix units; the loads of one wait for memory whoever else is there.
    step = np.maximum(g.busy * (x.matrix * g.matrix_us + x.step_us), latency / np.maximum(g.stages - 1, 1))
    # Weights that the L2 still holds from the run before are not fetched at all: it is not flushed in between.
    fetched = g.weight_us * (np.maximum(forgotten, np.minimum(x.held, 1.0)) + x.reread * g.bands * forgotten)
    return {
        "compute": g.waves * (g.steps * step + x.block_us),
        "memory": x.memory * (fetched * (1 + x.short * g.short) + g.other_us),
        "l2": x.l2 * g.l2_us,
    }


def _forgotten(x: Coefficients, t: Terms, held_bytes: F64) -> F64:
    """Share of so many bytes that the L2 no longer holds when they are asked for again."""
    return np.asarray(1 / (1 + (x.l2_keep * t.l2_bytes / np.maximum(held_bytes, 1.0)) ** 4))


def total_us(x: Coefficients, t: Terms) -> F64:
    """Time of the operation."""
    return sum(parts_us(x, t).values(), np.zeros(len(t.pairs)))
