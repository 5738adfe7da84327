"""What a kernel declares about itself, and what can be asked of it."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from moe_kernels.tile import TileConfig, Value

Op = Literal["gate_up", "up", "down"]
"""Which of a layer's GEMMs. ``gate_up`` gathers token rows, multiplies by two matrices and applies SwiGLU; ``up``
gathers, multiplies by one matrix and applies squared ReLU; ``down`` multiplies hidden rows and brings them back to
their tokens.
"""

OPS: tuple[Op, ...] = ("gate_up", "up", "down")


def up_op(*, gated: bool) -> Op:
    """The first of a layer's two GEMMs: with a gate and an up matrix, or with one matrix alone."""
    return "gate_up" if gated else "up"


@dataclass(frozen=True, kw_only=True)
class Problem:
    """The grouped GEMM that a tile is to run.

    Args:
        op: which of the layer's GEMMs.
        dtype: name of the weights' and activations' data type (bfloat16, fp8_block, ...).
        k, n: depth, and columns of one matrix; None stands for any size.
        group: K elements that share a scale, for data types whose scales belong to groups.
    """

    op: Op
    dtype: str
    k: int | None = None
    n: int | None = None
    group: int = 128


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """One kernel's declaration: what it can do, what it can be tuned by, and what its binary depends on.

    A declaration is read on machines that have no compiler, so the module that makes it imports none; ``build`` does
    when it is called.

    Args:
        name: ``backend.kernel``, as :mod:`moe_kernels.registry` lists it.
        tile_type: the class of its tile configurations.
        tile_spaces: for each way of running the kernel, the values worth trying per tile field. The tool compiles their
            products once per chip.
        launch_fields: tile fields that do not change the binary.
        dtypes: names of the data types that it takes.
        ops: which of a layer's GEMMs it runs. ``refuses`` says why it does not run another.
        refuses: called with (problem, tile, target); returns the reason why the tile cannot run the problem there, or
            None. A target of None stands for no chip in particular.
        default_tile: called with (problem, average rows per group, target); returns the tile of an untuned call.
        sources: the files whose text decides the binary. Facts about a binary are kept by their hash, so a change to
            one of them compiles the kernel's tiles again.
        build: the recipe by which the backend compiles one tile ahead of time, or None if only the host runs the
            kernel. Triton: called with (op, tile, dtype, target), returns the source and options of
            ``triton.compile``. Pallas: called with (op, tile), returns the problems whose programs are read
            (:mod:`moe_kernels.pallas.grouped_matmul.probes`).
        on_host: True for a kernel that the host runs and no accelerator uses.
        memory_bytes: called with (problem, tile); returns the bytes that its buffers take of a core's own memory. Given
            where the compiler does not report them.
    """

    name: str
    tile_type: type[TileConfig]
    tile_spaces: Mapping[str, Mapping[str, tuple[Value, ...]]]
    launch_fields: frozenset[str]
    dtypes: tuple[str, ...]
    ops: tuple[Op, ...] = OPS
    refuses: Callable[[Problem, Any, str | None], str | None]
    default_tile: Callable[[Problem, float, str | None], TileConfig]
    sources: tuple[Path, ...]
    build: Callable[..., Any] | None
    on_host: bool = False
    memory_bytes: Callable[[Problem, Any], int] | None = None

    @property
    def backend(self) -> str:
        """The language that it is written in: ``triton`` or ``pallas``."""
        return self.name.split(".", 1)[0]

    def tiles(self, space: Mapping[str, tuple[Value, ...]] | None = None) -> Iterator[TileConfig]:
        """Every tile of the kernel's spaces, each once; tiles that the kernel refuses are among them.

        Args:
            space: values to try instead of the kernel's own, per tile field.
        """
        seen: set[TileConfig] = set()
        for own in self.tile_spaces.values():
            values = {**own, **(space or {})}
            for combination in itertools.product(*values.values()):
                tile = self.tile_type.from_dict(dict(zip(values, combination, strict=True)))
                if tile not in seen:
                    seen.add(tile)
                    yield tile
