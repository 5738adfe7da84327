"""What a compiler made of one (kernel, op, tile, dtype, target), success or not."""

import functools
import hashlib
import importlib.metadata
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass as checked_dataclass

from moe_kernels.kernel import Kernel, Op, Problem, kernel_named
from moe_kernels.tile import TileConfig, Value

Status = Literal["ok", "refused", "failed", "timeout", "crashed", "missing"]
"""``refused``: the compiler or the kernel said no, with a limit. ``failed``: it raised something else. ``missing``:
there is no such function, or its arguments are others."""

_COMPILERS = {"triton": ("triton",), "pallas": ("jax", "jaxlib", "libtpu")}


@checked_dataclass(frozen=True, kw_only=True)
class GpuFacts:
    """From the binary: per-thread registers, spilled bytes, shared memory per block, and SASS or amdgcn.

    ``loop_instructions`` and ``loop_matrix`` count the main loop's instructions, for one warp and iteration.
    ``waves_per_simd`` is AMD's own occupancy figure.
    """

    registers: int
    spill_bytes: int
    stack_bytes: int
    shared_bytes: int
    code_bytes: int
    instructions: dict[str, int]
    loop_instructions: int
    loop_matrix: int
    waves_per_simd: int | None = None

    def count(self, *words: str) -> int:
        """Instructions whose opcode holds any of these words."""
        return sum(n for opcode, n in self.instructions.items() if any(w in opcode for w in words))


@checked_dataclass(frozen=True, kw_only=True)
class RegionFacts:
    """A stretch of a program: bundles at one depth of loops, with or without a condition."""

    start: int
    bundles: int
    loops: int
    conditional: bool
    slots: dict[str, int]


@checked_dataclass(frozen=True, kw_only=True)
class ProgramFacts:
    """A final VLIW program: its bundles, and what they issue.

    ``slots`` counts instructions by unit; ``widest`` is the most of a unit in one bundle; ``spills`` are registers that
    went through memory. ``regions`` are stretches of straight code, in order.
    """

    bundles: int
    slots: dict[str, int]
    widest: dict[str, int]
    instructions: dict[str, int]
    matrix_by_unit: dict[str, int]
    spills: int
    dma_bytes: int
    dynamic_dmas: int
    regions: list[RegionFacts]


@checked_dataclass(frozen=True, kw_only=True)
class TpuFacts:
    """From the VLIW program and the compiler's static profile.

    A step (one visit, one column tile) of b buckets of rows, K deep, takes ``fixed + bucket * b + (depth_fixed +
    depth_bucket * b) * K`` cycles in the units that compute, and ``issue`` more to start and await its copies.
    ``cycles``: static count of each probe. ``program``: the final program of the largest, with its copies; what runs
    has code for visits that are not full beside it (PallasTile.stretches).
    """

    cycles: dict[str, int]
    prologue_cycles: float
    fixed_cycles: float
    bucket_cycles: float
    depth_fixed_cycles: float
    depth_bucket_cycles: float
    issue_cycles: float
    program: ProgramFacts

    def step_cycles(self, buckets: float, k: float) -> float:
        """Of one step, its copies not waited for."""
        deep = self.depth_fixed_cycles + self.depth_bucket_cycles * buckets
        return self.fixed_cycles + self.bucket_cycles * buckets + deep * k + self.issue_cycles


@checked_dataclass(frozen=True, kw_only=True)
class Artifact:
    """A compile that happened: facts if it succeeded, the reason if it did not."""

    key: str
    kernel: str
    op: Op
    tile: dict[str, Value]
    dtype: str
    target: str
    compiler: str
    status: Status
    reason: str = ""
    compile_s: float = 0.0
    gpu: GpuFacts | None = None
    tpu: TpuFacts | None = None

    def to_json(self) -> str:
        return _ADAPTER.dump_json(self, indent=1, exclude_defaults=True).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> "Artifact":
        """Raises pydantic.ValidationError on anything that is not a whole artifact."""
        return _ADAPTER.validate_json(text)


_ADAPTER: TypeAdapter[Artifact] = TypeAdapter(Artifact)


class Outcome(Protocol):
    """What became of a compile."""

    @property
    def status(self) -> Status: ...

    def to_json(self) -> str: ...


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
def compiler_version(backend: str) -> str:
    """``triton 3.7.1``, or those of jax, jaxlib and libtpu; read from the packages' metadata, nothing imported."""
    parts = []
    for package in _COMPILERS[backend]:
        try:
            parts.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            parts.append(f"{package} absent")
    return ", ".join(parts)


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
