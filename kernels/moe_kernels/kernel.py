"""What every kernel file tells about itself, and how kernels are found."""

import functools
import importlib
import itertools
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from moe_kernels.tile import TileConfig

Op = Literal["gate_up", "up", "down"]
"""``gate_up``: gather, two matrices, SwiGLU. ``up``: gather, one matrix, squared ReLU. ``down``: the way back."""

OPS: tuple[Op, ...] = ("gate_up", "up", "down")


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """One kernel: what it can do, what it can be tuned by, and what its binary depends on.

    Args:
        name: ``backend.file``.
        tile_type: its tile configuration.
        tile_space: values worth trying per tile field; the tool compiles their product once per chip.
        launch_fields: tile fields that do not change the binary.
        dtypes: operand types it takes.
        refuses: ``(op, tile, dtype)`` to the reason why it cannot run, or None.
        default_tile: ``(op, rows per group on average, k, n)`` to the tile that an untuned user gets.
        sources: files whose text decides the binary.
        build: backend's recipe for compiling one (op, tile) ahead of time.
    """

    name: str
    tile_type: type[TileConfig]
    tile_space: Mapping[str, tuple[int, ...]]
    launch_fields: frozenset[str]
    dtypes: tuple[str, ...]
    refuses: Callable[[Op, Any, str], str | None]
    default_tile: Callable[[Op, float, int, int], TileConfig]
    sources: tuple[Path, ...]
    build: Callable[..., Any]

    @property
    def backend(self) -> str:
        return self.name.split(".", 1)[0]

    def tiles(self, space: Mapping[str, tuple[int, ...]] | None = None) -> Iterator[TileConfig]:
        """Every tile of ``space`` (default: the kernel's own), refused ones included."""
        values = {**self.tile_space, **(space or {})}
        for combination in itertools.product(*values.values()):
            yield self.tile_type.from_dict(dict(zip(values, combination, strict=True)))


@functools.cache
def kernels() -> tuple[dict[str, Kernel], dict[str, str]]:
    """All kernels by name, and for those whose backend cannot be imported here the reason."""
    found: dict[str, Kernel] = {}
    missing: dict[str, str] = {}
    for backend in ("triton", "pallas"):
        folder = Path(__file__).parent / backend
        for module in pkgutil.iter_modules([str(folder)]):
            name = f"{backend}.{module.name}"
            # A kernel file says so by defining KERNEL; reading the text first keeps layer code unimported.
            if "\nKERNEL = " not in (folder / f"{module.name}.py").read_text():
                continue
            try:
                found[name] = importlib.import_module(f"moe_kernels.{name}").KERNEL
            except ImportError as error:
                missing[name] = f"{error}; install the {backend} extra"
    return found, missing
