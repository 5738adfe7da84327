"""What one compiled form of the kernel depends on, the memory that it works in, and how an axis is cut into tiles."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from jax.experimental import pallas as pl

from moe_kernels.pallas.visits import Visits
from moe_kernels.tile import SUBLANES, PallasTile


@dataclass(frozen=True)
class Form:
    """Everything that decides one compiled form of the kernel.

    Args:
        tile: the tile, cut to the number of rows.
        k, n: depth, and columns of one matrix.
        matrices: 2 for gate and up, else 1.
        activation: a name of :mod:`moe_kernels.pallas.activation`.
        transposed: weights are [G, N, K].
        scale_rows: blocks of K that have a scale of their own in 8-bit weights; 0 where there are no scales.
        rows, copies, apart: ``fixed_rows``, ``copies`` and ``apart`` of
            :func:`moe_kernels.pallas.visit_matmul.kernel.visit_matmul`.
    """

    tile: PallasTile
    k: int
    n: int
    matrices: int
    activation: str
    transposed: bool
    scale_rows: int
    rows: int | None
    copies: bool
    apart: bool

    @property
    def tile_k(self) -> int:
        return min(self.tile.tile_k, self.k)

    @property
    def tile_n(self) -> int:
        return min(self.tile.tile_n, self.n)

    @property
    def depth_tiles(self) -> int:
        return -(-self.k // self.tile_k)

    @property
    def column_tiles(self) -> int:
        return -(-self.n // self.tile_n)

    @property
    def cores(self) -> int:
        """The tile's number of cores if the column tiles can be shared out evenly among them, else one."""
        return self.tile.cores if self.column_tiles % self.tile.cores == 0 else 1

    @property
    def columns_per_core(self) -> int:
        return self.column_tiles // self.cores

    @property
    def keeps_weights(self) -> bool:
        """Whether a block of weights stays in VMEM while all of its group's rows pass."""
        return not self.tile.rows_outer and self.depth_tiles == 1


class Refs(NamedTuple):
    """The memory that the kernel works in.

    ``visits`` is in scalar memory; ``rows``, ``weights``, ``scale`` and ``out`` are in HBM. In VMEM are ``rows_buf``
    and ``weights_buf`` (what was copied in, ``row_buffers`` and ``weight_buffers`` blocks of it), ``scale_buf`` and
    ``wide`` (scales, and 8-bit weights converted to the rows' type), ``acc`` (sums in float32, only where K takes
    several steps), ``out_buf`` (two blocks of results on their way out) and ``carry`` (eight rows that the next visit
    completes). ``rows_sem``, ``weights_sem`` and ``out_sem`` are the copies' semaphores; ``written`` says how many
    blocks of eight rows, and which columns, each block of results is sending.
    """

    visits: Visits
    rows: Any
    weights: tuple[Any, ...]
    scale: Any
    out: Any
    rows_buf: Any
    weights_buf: Any
    scale_buf: Any
    wide: Any
    acc: Any
    out_buf: Any
    carry: Any
    rows_sem: Any
    weights_sem: Any
    out_sem: Any
    written: Any


class Place(NamedTuple):
    """Where a step is: its visit, its column tile counted within this core and in all, and its depth tile."""

    visit: Any
    column: Any
    n: Any
    k: Any


def when(condition: Any, known: bool | None = None) -> Callable[[Callable[[], None]], None]:
    """``pl.when``, but decided while tracing where ``known`` says what the condition is."""

    def run(body: Callable[[], None]) -> None:
        if known is None:
            pl.when(condition)(body)
        elif known:
            body()

    return run


def cut(index: Any, tile: int, size: int, unit: int, body: Callable[[Any, int], None]) -> None:
    """Call ``body(start, length)`` for block ``index`` of an axis that is cut into blocks of ``tile``.

    The length of a last, shorter block is rounded up to ``unit``. Memory is laid out in whole tiles of sublanes and
    lanes, so what is copied beyond ``size`` exists; it is ignored.
    """
    count, tail = -(-size // tile), size % tile
    if count == 1:
        body(0, size)
    elif not tail:
        body(pl.multiple_of(index * tile, tile), tile)
    else:
        padded = -(-tail // unit) * unit
        pl.when(index < count - 1)(lambda: body(pl.multiple_of(index * tile, tile), tile))
        pl.when(index == count - 1)(lambda: body(pl.multiple_of(index * tile, tile), padded))


def refs_of(args: tuple[Any, ...], form: Form) -> Refs:
    """The kernel's arguments by name: Pallas passes the plan, inputs, output and scratch memory in one list."""
    fields = len(Visits._fields)
    visits, rest = Visits(*args[:fields]), list(args[fields:])
    rows, weights = rest.pop(0), tuple(rest.pop(0) for _ in range(form.matrices))
    scale = rest.pop(0) if form.scale_rows else None
    out, rows_buf, weights_buf = rest.pop(0), rest.pop(0), rest.pop(0)
    scale_buf, wide = (rest.pop(0), rest.pop(0)) if form.scale_rows else (None, None)
    acc = rest.pop(0) if form.depth_tiles > 1 else None
    return Refs(visits, rows, weights, scale, out, rows_buf, weights_buf, scale_buf, wide, acc, *rest)


def tallest(num_rows: int) -> int:
    """The smallest tile_m that holds all rows: a multiple of 16, the sublanes of a bfloat16 memory tile."""
    return -(-num_rows // (2 * SUBLANES)) * 2 * SUBLANES
