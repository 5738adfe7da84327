"""A serving stack's whole fused MoE operation as named physical terms, over columns of problems.

What measured latencies cover: route, align, GEMM 1, activation, GEMM 2, sum over k, each a kernel in one CUDA graph.
Per GEMM the cores' time (tiles in waves, each step the longer of matrix work and load latency over the pipeline's
depth), HBM's and the L2's run side by side; a power mean joins them. A load takes the L2's latency where the L2 still
holds the weights from the run before, HBM's where it does not. Elementwise kernels, alignment, zeros that are written
for choices of other ranks, blocks that find nothing to do and launches are added. StackCoefficients have no units where
they scale a chip file's number, so that they can be carried to another chip.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from moe_codesign.arrays import F64
from moe_codesign.calibrations.stacks import StackCoefficients
from moe_codesign.chips import GpuChip
from moe_codesign.cost.bound import layer_bytes, layer_flops
from moe_codesign.cost.stacks.columns import Columns
from moe_codesign.domain.dtype import DTYPE_BYTES
from moe_codesign.stacks.tiles import BLOCK_M, StackTiles

_LINE_BYTES = 128.0
_FITTED_REGISTERS = 65536
"""Registers of a core of every chip whose rows the shipped coefficients were fitted to. A core with more (AMD's) is
counted with these: what it does with the rest is in no row."""


@dataclass(frozen=True)
class GemmShape:
    """Per row: depth K and columns N of one GEMM, and bytes of the rows that it reads, each once."""

    k: F64
    n: F64
    read_bytes: F64


@dataclass(frozen=True)
class Grid:
    """How one GEMM is cut, per row.

    Args:
        row_tiles: tiles of rows.
        across: tiles of columns.
        steps: steps of K in a tile.
        resident: blocks that a core holds at once.
    """

    row_tiles: F64
    across: F64
    steps: F64
    resident: F64

    @property
    def blocks(self) -> F64:
        """Programs of the launch."""
        return self.row_tiles * self.across


@dataclass(frozen=True)
class GemmTerms:
    """What the coefficients are multiplied with for one GEMM, per row.

    Args:
        waves: blocks of a core, one after the other.
        steps: steps of K in a block.
        busy: blocks that share a core.
        matrix_us: matrix instructions of a step, at the chip's peak.
        stages: depth of the tile's pipeline.
        weight_us: reading the active weights once, at the peak bandwidth.
        weight_bytes: bytes of the active weights.
        bands: bands of row tiles after the first, for which weights are asked again.
        other_us: reading and writing rows, at the peak bandwidth.
        l2_us: everything that the blocks load, at the L2's bandwidth.
        short: extra lines of memory where a tile reads part of each.
    """

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
class AfterGemm:
    """What follows a GEMM: elementwise work on its result, and zeros in it for choices of other ranks."""

    bytes: F64
    elementwise_us: F64
    zeros_us: F64


@dataclass(frozen=True)
class Terms:
    """Everything of the model that does not depend on coefficients."""

    gemms: tuple[GemmTerms, GemmTerms]
    after: tuple[AfterGemm, AfterGemm]
    l2_bytes: float
    zero_blocks: F64
    empty_blocks: F64
    pairs: F64
    local_experts: F64
    narrow: F64
    tiles: StackTiles
    blocks: F64

    @property
    def weight_bytes(self) -> F64:
        """Bytes of both GEMMs' active experts: what the L2 would have to keep from one run to the next."""
        return self.gemms[0].weight_bytes + self.gemms[1].weight_bytes


def bound_us(columns: Columns, chip: GpuChip, dtype: str) -> F64:
    """The physical bound of each problem, by the same formula as :func:`moe_codesign.cost.bound.layer_bound`.

    Raises:
        UserError: the chip has no matrix units for the dtype.
    """
    c = columns
    tokens = np.where(c.local_experts == c.experts, c.num_tokens, c.largest)
    flops = layer_flops(rows=c.rows, hidden=c.hidden, up_width=c.up_width, width=c.width)
    least_bytes = layer_bytes(
        dtype,
        active=c.active,
        fewest_tokens=np.minimum(tokens, c.rows),
        hidden=c.hidden,
        up_width=c.up_width,
        width=c.width,
    )
    least = np.maximum(1e6 * flops / chip.peak(dtype), 1e6 * least_bytes / chip.memory.hbm_bytes_per_s)
    return np.asarray(least / chip.doubt)


def terms(columns: Columns, chip: GpuChip, dtype: str, tiles: StackTiles, down: StackTiles | None = None) -> Terms:
    """Work of each kernel of the operation.

    Args:
        columns: the problems.
        chip: where they run.
        dtype: their data type.
        tiles: the tiles that are launched; see :func:`moe_codesign.cost.stacks.tiles.launched`.
        down: tiles of GEMM 2, of the same heights; default the same.

    Raises:
        UserError: the chip has no matrix units for the dtype.
    """
    c, item = columns, DTYPE_BYTES[dtype]
    bandwidth = 1e-6 * chip.memory.hbm_bytes_per_s
    cores = float(chip.core.count)
    shapes = gemm_shapes(columns, dtype)
    both = (tiles, down or tiles)
    grids = [grid_of(columns, chip, dtype, own, shape) for own, shape in zip(both, shapes, strict=True)]
    first, second = (gemm_terms(columns, chip, dtype, *one) for one in zip(both, shapes, grids, strict=True))
    pairs = c.num_tokens * c.top_k
    others = np.maximum(pairs - c.rows, 0.0)
    across = sum((grid.across for grid in grids), np.zeros(len(c)))
    zero_blocks = np.ceil(others / tiles.block_m)
    # The grid is a bound: programs past the rows that there are find nothing to do.
    most = np.minimum(pairs + c.experts * (tiles.block_m - 1), pairs * tiles.block_m) / tiles.block_m
    # Activation and sum run over every choice of the tokens that entered, whoever's expert it is.
    touched = (pairs * (c.up_width + c.width), pairs * c.hidden + c.num_tokens * c.hidden)
    after_up, after_down = (
        AfterGemm(
            bytes=2.0 * pairs * shape.n,
            elementwise_us=2.0 * values / bandwidth,
            zeros_us=2.0 * others * shape.n / bandwidth,
        )
        for shape, values in zip(shapes, touched, strict=True)
    )
    return Terms(
        gemms=(first, second),
        after=(after_up, after_down),
        l2_bytes=chip.memory.l2_bytes,
        zero_blocks=zero_blocks * across / cores,
        empty_blocks=np.maximum(most - grids[0].row_tiles - zero_blocks, 0) * across / cores,
        pairs=pairs,
        local_experts=c.local_experts,
        narrow=(c.width * item % 16 != 0).astype(float),
        tiles=tiles,
        blocks=grids[0].blocks + grids[1].blocks,
    )


def gemm_shapes(columns: Columns, dtype: str) -> tuple[GemmShape, GemmShape]:
    """Sizes of GEMM 1 and GEMM 2."""
    c, item = columns, DTYPE_BYTES[dtype]
    distinct = np.minimum(c.num_tokens, c.rows)
    return (
        GemmShape(c.hidden, c.up_width, distinct * c.hidden * item),
        GemmShape(c.width, c.hidden, c.rows * c.width * item),
    )


def grid_of(columns: Columns, chip: GpuChip, dtype: str, tiles: StackTiles, shape: GemmShape) -> Grid:
    """How the tiles cut that GEMM."""
    return Grid(
        row_tiles=np.choose(np.searchsorted(BLOCK_M, tiles.block_m), columns.row_tiles),
        across=np.ceil(shape.n / tiles.block_n),
        steps=np.ceil(shape.k / tiles.block_k),
        resident=_resident(tiles, chip, DTYPE_BYTES[dtype]),
    )


def gemm_terms(
    columns: Columns, chip: GpuChip, dtype: str, tiles: StackTiles, shape: GemmShape, grid: Grid
) -> GemmTerms:
    """Work of one GEMM that is cut so."""
    c, item, cores = columns, DTYPE_BYTES[dtype], float(chip.core.count)
    bandwidth = 1e-6 * chip.memory.hbm_bytes_per_s
    blocks = grid.blocks
    fill = blocks / (cores * grid.resident)
    traffic = blocks * grid.steps * (tiles.block_m + tiles.block_n) * tiles.block_k * item
    weights = c.active * shape.k * shape.n * item
    return GemmTerms(
        # The last wave is rarely in step with the others: halfway between whole waves and none.
        waves=np.where(fill < 1, 1.0, (np.ceil(fill) + fill) / 2),
        steps=grid.steps,
        busy=np.clip(blocks / cores, 1.0, grid.resident),
        matrix_us=1e6 * 2 * tiles.block_m * tiles.block_n * tiles.block_k / (chip.peak(dtype) / cores),
        stages=tiles.num_stages,
        weight_us=weights / bandwidth,
        weight_bytes=weights,
        bands=np.maximum(grid.row_tiles / np.maximum(c.active, 1) / tiles.group_m, 1.0) - 1,
        other_us=(shape.read_bytes + c.rows * shape.n * 2.0) / bandwidth,
        # Weights lie along k. A line that is asked for in parts is fetched in parts.
        short=np.maximum(_LINE_BYTES / (tiles.block_k * item) - 1, 0.0),
        l2_us=1e6 * traffic / chip.memory.l2_bytes_per_s,
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


def parts_us(x: StackCoefficients, t: Terms) -> dict[str, F64]:
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


def limiters(x: StackCoefficients, t: Terms, parts: Mapping[str, F64]) -> list[str]:
    """What takes most of each problem: a side of its GEMMs, or one of the parts (:func:`parts_us`) beside them."""
    first, second = (_sides(x, g, t) for g in t.gemms)
    sides = {name: first[name] + second[name] for name in first}
    rest = {name: value for name, value in parts.items() if not name.startswith("gemm")}
    names = [*sides, *rest]
    order = np.argmax(np.stack([*sides.values(), *rest.values()]), axis=0)
    return [names[i] for i in order.tolist()]


def _sides(x: StackCoefficients, g: GemmTerms, t: Terms) -> dict[str, F64]:
    forgotten = _forgotten(x, t, t.weight_bytes)
    # The runs before left the L2 as it is, so small weights are near.
    near = min(x.near_us, x.latency_us)
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


def _forgotten(x: StackCoefficients, t: Terms, held_bytes: F64) -> F64:
    """Share of so many bytes that the L2 no longer holds when they are asked for again."""
    return np.asarray(1 / (1 + (x.l2_keep * t.l2_bytes / np.maximum(held_bytes, 1.0)) ** 4))


def total_us(x: StackCoefficients, t: Terms) -> F64:
    """Time of the operation."""
    return sum(parts_us(x, t).values(), np.zeros(len(t.pairs)))
