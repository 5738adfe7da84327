"""A compile to make, and the key of its artifact."""

import hashlib
import json
from dataclasses import dataclass, fields
from typing import Protocol

from moe_codesign.compiler.source_hash import source_hash
from moe_codesign.versions import compiler_version
from moe_kernels.kernel import Kernel, Op, Problem
from moe_kernels.registry import kernel_named
from moe_kernels.tile import TileConfig


class CompileRequest(Protocol):
    """One compile to make."""

    @property
    def key(self) -> str:
        """Hash of everything that the outcome depends on; the artifact's name in the cache."""
        ...

    @property
    def target(self) -> str: ...

    @property
    def compiler(self) -> str: ...

    def describe(self) -> str:
        """What is to be compiled, in a few words."""
        ...


@dataclass(frozen=True)
class Request:
    """One compile to make: everything that the binary depends on."""

    kernel: str
    op: Op
    tile: TileConfig
    dtype: str
    target: str
    compiler: str
    source_hash: str

    @property
    def key(self) -> str:
        """Hash of the request; the artifact's name in the cache."""
        fields = {**self.__dict__, "tile": self.tile.as_dict()}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:32]

    def describe(self) -> str:
        return f"{self.kernel} {self.op} {self.dtype} with tile {self.tile.label()} for {self.target}"

    def refusal(self) -> str | None:
        """Why the kernel does not take this tile at any size, without a compile; None if it does."""
        kernel = kernel_named(self.kernel)
        return None if kernel is None else kernel.refuses(Problem(op=self.op, dtype=self.dtype), self.tile, self.target)


def request(kernel: Kernel, op: Op, tile: TileConfig, dtype: str, target: str) -> Request:
    """The compile of one tile; fields that only matter at launch are set to their defaults."""
    defaults = {f.name: f.default for f in fields(kernel.tile_type) if f.name in kernel.launch_fields}
    neutral = kernel.tile_type.from_dict({**tile.as_dict(), **defaults})
    return Request(
        kernel=kernel.name,
        op=op,
        tile=neutral,
        dtype=dtype,
        target=target,
        compiler=compiler_version(kernel.backend),
        source_hash=source_hash(kernel.sources),
    )
