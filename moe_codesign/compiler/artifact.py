"""What a compiler made of one request: facts of the binary, the reason why there is no binary, or no answer yet.

A result cannot be built without what it stands for: :class:`Compiled` has facts, :class:`Refused` a reason. Both are
artifacts, which are kept. :class:`Unanswered` is what chance did (a time limit, a process that was killed); it is
reported and never kept, so that a busy machine decides nothing for later.
"""

from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, ConfigDict, Field, NonNegativeInt, TypeAdapter
from pydantic.dataclasses import dataclass as checked_dataclass

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


def _most_first(counts: dict[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


Counts = Annotated[dict[str, NonNegativeInt], AfterValidator(_most_first)]
"""How often each word occurs, the most frequent first, so that equal counts also print alike."""

Reason = Annotated[str, Field(min_length=1)]


def count_words(counts: Mapping[str, int], *words: str) -> int:
    """Sum of the counts whose name holds any of these words."""
    return sum(n for name, n in counts.items() if any(word in name for word in words))


@checked_dataclass(frozen=True, kw_only=True, config=_STRICT)
class GpuFacts:
    """What a GPU binary takes and holds, read from the compiler's metadata and from SASS or amdgcn.

    Args:
        registers: per thread.
        spill_bytes: per thread, that registers had no room for.
        stack_bytes: per thread.
        shared_bytes: shared memory per block.
        code_bytes: size of the program.
        instructions: opcode to how often it stands in the program.
        loop_instructions, loop_matrix: instructions of the main loop, and how many of them run on matrix units, for
            one warp and iteration.
        waves_per_simd: AMD's own occupancy figure; None on NVIDIA.
    """

    registers: NonNegativeInt
    spill_bytes: NonNegativeInt
    stack_bytes: NonNegativeInt
    shared_bytes: NonNegativeInt
    code_bytes: NonNegativeInt
    instructions: Counts
    loop_instructions: NonNegativeInt
    loop_matrix: NonNegativeInt
    waves_per_simd: NonNegativeInt | None = None

    def count(self, *words: str) -> int:
        """Instructions whose opcode holds any of these words."""
        return count_words(self.instructions, *words)


@checked_dataclass(frozen=True, kw_only=True, config=_STRICT)
class RegionFacts:
    """A stretch of a program: bundles at one depth of loops, with or without a condition."""

    start: NonNegativeInt
    bundles: NonNegativeInt
    loops: NonNegativeInt
    conditional: bool
    slots: Counts


@checked_dataclass(frozen=True, kw_only=True, config=_STRICT)
class ProgramFacts:
    """A final VLIW program: its bundles, and what they issue.

    ``slots`` counts instructions by unit; ``widest`` is the most of a unit in one bundle; ``spills`` are registers that
    went through memory. ``regions`` are stretches of straight code, in order.
    """

    bundles: NonNegativeInt
    slots: Counts
    widest: Counts
    instructions: Counts
    matrix_by_unit: Counts
    spills: NonNegativeInt
    dma_bytes: NonNegativeInt
    dynamic_dmas: NonNegativeInt
    regions: list[RegionFacts]


@checked_dataclass(frozen=True, kw_only=True, config=_STRICT)
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
        """Cycles of one step, without waiting for its copies."""
        deep = self.depth_fixed_cycles + self.depth_bucket_cycles * buckets
        return self.fixed_cycles + self.bucket_cycles * buckets + deep * k + self.issue_cycles


@checked_dataclass(frozen=True, config=_STRICT)
class KernelProgram:
    """One kernel (or fusion) of a compiled function; ``cycles`` are static, None where the compiler did not count."""

    name: str
    cycles: int | None
    program: ProgramFacts


@checked_dataclass(frozen=True, kw_only=True, config=_STRICT)
class JaxFacts:
    """Every kernel and fusion of a JAX function, the longest first."""

    kernels: tuple[KernelProgram, ...]


Facts: TypeAlias = GpuFacts | TpuFacts | JaxFacts


@checked_dataclass(frozen=True, kw_only=True, config=_STRICT)
class Compiled:
    """The compiler made a binary.

    Args:
        facts: what was read from it.
        compiler: name and version of what compiled it.
        compile_s: seconds that it took; 0 where the facts were shipped.
        note: what is missing from the facts, if anything.
        sources: files that a user's function imported, with their hashes.
    """

    facts: Facts
    compiler: str
    compile_s: float = 0.0
    note: str = ""
    sources: dict[str, str] = Field(default_factory=dict)

    @property
    def status(self) -> str:
        """The regression baselines' word for it."""
        return "ok"


@checked_dataclass(frozen=True, kw_only=True, config=_STRICT)
class Refused:
    """There is no binary, and trying again gives none.

    ``kind``: ``refused`` where the kernel or the compiler said no, with a limit; ``failed`` where the compiler raised
    something else. ``compiler`` is empty where the kernel refused before anything was compiled.
    """

    kind: Literal["refused", "failed"]
    reason: Reason
    compiler: str = ""
    compile_s: float = 0.0
    sources: dict[str, str] = Field(default_factory=dict)

    @property
    def status(self) -> str:
        return self.kind


@checked_dataclass(frozen=True, kw_only=True, config=_STRICT)
class Unanswered:
    """Nobody knows: the next command asks again.

    ``kind``: ``timeout`` within the time limit, ``crashed`` where the process died or the machine ran out of memory
    or disk, ``missing`` where there is no such function, or it takes other arguments.
    """

    kind: Literal["timeout", "crashed", "missing"]
    reason: Reason

    @property
    def status(self) -> str:
        return self.kind


Artifact: TypeAlias = Compiled | Refused
CompileResult: TypeAlias = Artifact | Unanswered

_ADAPTER: TypeAdapter[Artifact] = TypeAdapter(Artifact)


def to_json(artifact: Artifact) -> bytes:
    """The artifact as it is kept: one line."""
    return _ADAPTER.dump_json(artifact, exclude_defaults=True)


def from_json(text: bytes) -> Artifact:
    """Raises pydantic.ValidationError, a ValueError, on anything that is not a whole artifact."""
    return _ADAPTER.validate_json(text)
