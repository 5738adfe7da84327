"""Numbers read from a compiled binary or program for a regression test."""

import re
from dataclasses import dataclass

import numpy as np

from moe_codesign.chips import GpuChip
from moe_codesign.compiler.artifact import GpuFacts, ProgramFacts
from moe_codesign.compiler.sass import MATRIX_OPCODES
from moe_codesign.cost.occupancy import blocks_of_core
from moe_codesign.regression.facts import Fact, Facts, Place


@dataclass(frozen=True)
class Observation:
    """The facts of one place, and in the compiler's own words why something is missing from them."""

    place: Place
    facts: Facts
    reason: str = ""


def without(place: Place, status: str, reason: str) -> Observation:
    """The observation of a compile that gave nothing, and why."""
    # Paths and addresses are this machine's; the facts are everyone's.
    plain = re.sub(r"0x[0-9a-f]+", "0x..", re.sub(r"(?:/[^\s/'\"]+){2,}", "/..", reason))
    return Observation(place, Facts(status, reason=plain), reason)


def gpu_facts(gpu: GpuFacts, chip: GpuChip, num_warps: int) -> dict[Fact, float]:
    """Numbers of one GPU binary on a chip: registers, spills, occupancy, instructions of the main loop."""
    columns = (np.array([float(v or 0)]) for v in (num_warps, gpu.registers, gpu.shared_bytes, gpu.waves_per_simd))
    loads = {op: n for op, n in gpu.instructions.items() if op.startswith(_GLOBAL_LOADS)}
    facts: dict[str, float] = {
        "registers": gpu.registers,
        "spill_bytes": gpu.spill_bytes,
        "shared_bytes": gpu.shared_bytes,
        "resident_blocks": int(blocks_of_core(chip, *columns)[0]),
        "code_bytes": gpu.code_bytes,
        "instructions": sum(gpu.instructions.values()),
        "matrix_instructions": sum(n for op, n in gpu.instructions.items() if MATRIX_OPCODES.match(op)),
        "async_copies": gpu.count("LDGSTS", "UTMALDG", "UBLKCP", "load_lds"),
        "narrow_loads": sum(n for op, n in loads.items() if not any(word in op for word in _WIDE)),
    }
    if gpu.loop_matrix:
        facts["instructions_per_matrix"] = round(gpu.loop_instructions / gpu.loop_matrix, 2)
    return {Fact(name): number for name, number in facts.items()}


_GLOBAL_LOADS = ("LDG.", "LDGSTS.", "global_load", "buffer_load")
_WIDE = (".128", ".256", "x4", "b128")
"""Words of a load of 16 bytes a thread or more."""


def program_facts(programs: list[ProgramFacts]) -> dict[Fact, float]:
    """Numbers of the TPU programs of one function, summed."""
    facts = {
        "bundles": sum(p.bundles for p in programs),
        "spills": sum(p.spills for p in programs),
        "dma_bytes": sum(p.dma_bytes for p in programs),
        "matrix_instructions": sum(n for p in programs for op, n in p.instructions.items() if op.startswith("vmatmul")),
    }
    return {Fact(name): number for name, number in facts.items()}
