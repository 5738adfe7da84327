"""What a kernel declares about itself, and what can be asked of it."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from moe_kernels.tile import TileConfig, Value

Op = Literal["gate_up", "up", "down"]
"""``gate_up``: gather, two matrices, SwiGLU. ``up``: gather, one matrix, squared ReLU. ``down``: the way back."""

OPS: tuple[Op, ...] = ("gate_up", "up", "down")


def up_op(*, gated: bool) -> Op:
    """The first of a layer's two GEMMs: with a gate and an up matrix, or with one matrix alone."""
    return "gate_up" if gated else "up"


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What a tile is asked to run.

    Args:
        op: which grouped GEMM.
        dtype: of weights and activations, in the tool's words (bfloat16, fp8_block, ...).
        k, n: depth and columns of one matrix; None asks of any size.
        group: K elements that share a scale, for data types with groups.
    """

    op: Op
    dtype: str
    k: int | None = None
    n: int | None = None
    group: int = 128


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """One kernel: what it can do, what it can be tuned by, and what its binary depends on.

    Args:
        name: ``backend.file``.
        tile_type: its tile configuration.
        tile_spaces: for each way of running, values worth trying per tile field; the tool compiles their products
            once per chip.
        launch_fields: tile fields that do not change the binary.
        dtypes: operand types it takes.
        refuses: ``(problem, tile, target)`` to the reason why it cannot run, or None; target None: on no chip at all.
        default_tile: ``(problem, rows per group on average, target)`` to the tile that an untuned user gets.
        sources: files whose text decides the binary.
        build: backend's recipe for compiling one (op, tile, ...) ahead of time; None where only the host runs it.
        on_host: the host's kernel, which no accelerator uses.
        memory_bytes: ``(problem, tile)`` to what its buffers take of a core's own memory, where its compiler does not
            tell.
    """

    name: str
    tile_type: type[TileConfig]
    tile_spaces: Mapping[str, Mapping[str, tuple[Value, ...]]]
    launch_fields: frozenset[str]
    dtypes: tuple[str, ...]
    refuses: Callable[[Problem, Any, str | None], str | None]
    default_tile: Callable[[Problem, float, str | None], TileConfig]
    sources: tuple[Path, ...]
    build: Callable[..., Any] | None
    on_host: bool = False
    memory_bytes: Callable[[Problem, Any], int] | None = None

    @property
    def backend(self) -> str:
        return self.name.split(".", 1)[0]

    def tiles(self, space: Mapping[str, tuple[Value, ...]] | None = None) -> Iterator[TileConfig]:
        """Every tile of the kernel's spaces, fields of ``space`` replaced, each once, refused ones included."""
        seen: set[TileConfig] = set()
        for own in self.tile_spaces.values():
            values = {**own, **(space or {})}
            for combination in itertools.product(*values.values()):
                tile = self.tile_type.from_dict(dict(zip(values, combination, strict=True)))
                if tile not in seen:
                    seen.add(tile)
                    yield tile
