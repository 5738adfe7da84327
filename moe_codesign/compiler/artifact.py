"""What a compiler made of one (kernel, op, tile, dtype, target), success or not."""

from typing import Literal, Protocol

from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass as checked_dataclass

from moe_kernels.kernel import Op
from moe_kernels.tile import Value

Status = Literal["ok", "refused", "failed", "timeout", "crashed", "missing"]
"""``refused``: the compiler or the kernel said no, with a limit. ``failed``: it raised something else. ``missing``:
there is no such function, or its arguments are others."""


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
