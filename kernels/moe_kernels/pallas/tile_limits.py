"""Which tiles the TPU's grouped matmul takes on which TPU, and the tile that an untuned user gets."""

import itertools

from moe_kernels.kernel import Op, Problem
from moe_kernels.tile import LANES, SUBLANES, WHOLE_DEPTH, PallasTile

_VMEM_MIB = {"v4": 16, "v5e": 128, "v5p": 64, "v6e": 128, "tpu7x": 64}
"""VMEM of one core (JAX source, jax/_src/pallas/mosaic/tpu_info.py, vmem_capacity_bytes)."""

_COMPILERS_MIB = 2
"""The part of it that is left to the compiler, which keeps a bucket's product in float32 and its spills there."""

_PRODUCTS_PER_BUNDLE = {"v4": 83_000, "v5e": 83_000, "v5p": 83_000, "v6e": 230_000, "tpu7x": 550_000}
"""Multiply-adds per bundle of final programs with 10,000 bundles or more, within 10 % (libtpu 0.0.52; for v4 and v5e
those of v5p are taken)."""

_PROGRAM_BUNDLES = {"v4": 61_000, "v5e": 61_000, "v5p": 61_000, "v6e": 37_000, "tpu7x": 37_000}
"""The largest programs, in bundles, that still ran at the speed of small ones among 54 published timings of tokamax's
gmm_v2: 61,000 on v5p (at 102,000 half the speed) and 37,000 on v6e (at 51,000 half the speed). Nothing over 18,000 was
published for tpu7x, and nothing at all for v5e and v4: they have the value of the generation with the same matrix
unit."""

_LEAST_DEPTH: dict[Op, int] = {"gate_up": 1024, "up": 1024, "down": 512}
"""The least K of the catalogue's models: a tile that is too large at this K need not be compiled."""


def refuses(problem: Problem, tile: PallasTile, target: str | None) -> str | None:
    """The reason why the kernel cannot run the problem with this tile, as :class:`moe_kernels.kernel.Kernel` has it."""
    if problem.dtype != "bfloat16":
        return f"dtype {problem.dtype} is not supported by pallas.grouped_matmul; use bfloat16"
    for field in ("tile_m", "bucket_m"):
        if getattr(tile, field) % 16:
            return f"{field} = {getattr(tile, field)} is not a multiple of 16, the bfloat16 sublane tile"
    for field in ("tile_k", "tile_n"):
        if getattr(tile, field) % LANES:
            return f"{field} = {getattr(tile, field)} is not a multiple of {LANES}, the lane count"
    for field in ("weight_buffers", "row_buffers"):
        if getattr(tile, field) < 2:
            return f"{field} = 1 leaves nothing to copy into while one is in use; use 2 or more"
    if tile.cores > 1 and target is not None and not target.startswith(("v4", "v5p")):
        return f"cores = {tile.cores}: a device of {target} has one core; use 1"
    for name, size in (("K", problem.k), ("N", problem.n)):
        if size is not None and size % SUBLANES:
            return f"{name} = {size} is not a multiple of {SUBLANES}; pad it"
    if target is not None and problem.k is not None and problem.k <= tile.tile_k < WHOLE_DEPTH:
        return (
            f"tile_k = {tile.tile_k} holds the whole of K = {problem.k}: use {WHOLE_DEPTH}, which is analysed for that"
        )
    if target is not None:
        needs, has = vmem_bytes(problem, tile), (_VMEM_MIB[_generation(target)] - _COMPILERS_MIB) << 20
        if needs > has:
            return f"VMEM: its buffers need {needs} bytes of the {has} that a core of {target} has; use smaller tiles"
        bundles, most = program_bundles(problem, tile, target), most_bundles(target)
        if bundles > most:
            return (
                f"program: about {bundles} bundles, over {most}, the largest that is known to run at full speed on "
                f"{target}; use a smaller tile_n or tile_m"
            )
    return None


def _generation(target: str) -> str:
    return target.split(":")[0]


def program_bundles(problem: Problem, tile: PallasTile, target: str) -> int:
    """Roughly how many bundles the program has, since all its loops are unrolled; at the least K where K is not known.

    There is code for the rows of a full visit and of each stretch, times depth and columns, at a known number of
    multiply-adds per bundle. Where K is cut there is code for its first tile, its last, and those between.
    """
    whole = problem.k or _LEAST_DEPTH[problem.op]
    k = min(tile.tile_k, whole) * min(-(-whole // tile.tile_k), 3)
    rows = tile.bucket_m * (tile.buckets + sum(tile.stretches))
    columns = min(tile.tile_n, problem.n or tile.tile_n) * (2 if problem.op == "gate_up" else 1)
    return round(rows * k * columns / _PRODUCTS_PER_BUNDLE[_generation(target)])


def most_bundles(target: str) -> int:
    """The most bundles with which a program is known to run at full speed."""
    return _PROGRAM_BUNDLES[_generation(target)]


def vmem_bytes(problem: Problem, tile: PallasTile) -> int:
    """Bytes of VMEM that the buffers take on one core; at the least K where K is not known."""
    k = tile.tile_k if problem.k is None and tile.tile_k < WHOLE_DEPTH else problem.k or LANES
    tile_k, tile_n = min(tile.tile_k, k), min(tile.tile_n, problem.n or tile.tile_n)
    depth, matrices = -(-k // tile_k), 2 if problem.op == "gate_up" else 1
    lanes_k, lanes_n = (-(-size // LANES) * LANES for size in (tile_k, tile_n))
    carried = -(-problem.n // tile_n) if tile.rows_outer and problem.n else 1
    wide = 2 * (
        tile.row_buffers * depth * tile.tile_m * lanes_k
        + tile.weight_buffers * matrices * tile_k * lanes_n
        + 2 * tile.tile_m * lanes_n
    )
    return wide + 4 * SUBLANES * carried * lanes_n + (4 * matrices * tile.tile_m * lanes_n if depth > 1 else 0)


def default_tile(problem: Problem, rows_per_group: float, target: str | None) -> PallasTile:
    """An untuned user's tile: a visit holds a whole group of up to 640 rows, and as many columns as are not refused."""
    most = int(1.25 * rows_per_group) + SUBLANES
    step = 16 if most <= 128 else 128  # a bucket with few rows costs as much as a full one
    rows = min(-(-most // step) * step, 640)
    cores = 2 if target is not None and target.startswith("v5p") else 1
    heights = [rows, *(height for height in (512, 256, 128, 64, 32, 16) if height < rows)]
    # Column tiles that the cores can share come first.
    widths = sorted((512, 256, LANES), key=lambda width: -(-(problem.n or width * cores) // width) % cores)
    for height, width in itertools.product(heights, widths):
        tile = PallasTile(
            tile_m=height,
            tile_k=WHOLE_DEPTH,
            tile_n=width,
            bucket_m=min(height, 128),
            rows_outer=rows < 640,
            cores=cores,
        )
        if refuses(problem, tile, target) is None:
            return tile
    return tile
