"""A compile to make, and the key of its artifact."""

import functools
import hashlib
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol, TypeVar

from moe_codesign.compiler.artifact import Artifact, Outcome, Status
from moe_codesign.versions import compiler_version
from moe_kernels.kernel import Kernel, Op, Problem
from moe_kernels.registry import kernel_named
from moe_kernels.tile import TileConfig

O_co = TypeVar("O_co", bound=Outcome, covariant=True)


class CompileRequest(Protocol[O_co]):
    """One compile to make, and how its outcome is written and read back."""

    @property
    def key(self) -> str: ...

    @property
    def target(self) -> str: ...

    def outcome(self, status: Status, reason: str = "", **facts: object) -> O_co: ...

    def read(self, text: bytes) -> O_co:
        """Raises pydantic.ValidationError on anything that is not a whole outcome."""
        ...

    def is_current(self, outcome: Any) -> bool:
        """Whether what was kept would be made again today."""
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

    def outcome(self, status: Status, reason: str = "", **facts: object) -> Artifact:
        return Artifact(
            key=self.key,
            kernel=self.kernel,
            op=self.op,
            tile=self.tile.as_dict(),
            dtype=self.dtype,
            target=self.target,
            compiler=self.compiler,
            status=status,
            reason=reason,
            **facts,  # type: ignore[arg-type]
        )

    def read(self, text: bytes) -> Artifact:
        return Artifact.from_json(text)

    def is_current(self, outcome: Artifact) -> bool:
        """A refusal of the kernel's own (nothing was compiled) is asked for again: its rules are not in the key."""
        if outcome.status != "refused" or outcome.compile_s:
            return True
        kernel = kernel_named(self.kernel)
        problem = Problem(op=self.op, dtype=self.dtype)
        return kernel is None or kernel.refuses(problem, self.tile, self.target) == outcome.reason


@functools.cache
def source_hash(sources: tuple[Path, ...], backend: str) -> str:
    """Hash of the kernel's files and of the analysis that reads its binary."""
    here = Path(__file__).parent
    analysis = {"triton": ("gpu.py", "sass.py"), "pallas": ("tpu.py", "llo.py")}[backend]
    digest = hashlib.sha256()
    for path in (*sources, *(here / name for name in analysis)):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


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
        source_hash=source_hash(kernel.sources, kernel.backend),
    )
