"""Read machine code listings: opcodes and the main loop, from NVIDIA SASS and AMD amdgcn."""

import re
from collections import Counter
from dataclasses import dataclass

_SASS_LABEL = re.compile(r"^(\.L_x_\d+):")
_SASS_INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:\{\s*)?(?:@!?U?P\w+\s+)?([A-Z][\w.]*)(.*)")
_SASS_TARGET = re.compile(r"\((\.L_x_\d+)\)")
_AMD_LABEL = re.compile(r"^(\.LBB\d+_\d+):")
_AMD_INSTRUCTION = re.compile(r"^\s+((?:v|s|ds|global|buffer|flat|scratch)_\w+)(.*)")
_AMD_TARGET = re.compile(r"(\.LBB\d+_\d+)")

MATRIX_OPCODES = re.compile(r"^(HMMA|HGMMA|QGMMA|IMMA|IGMMA|QMMA|UTC\w*MMA|v_mfma|v_smfmac)")
"""Instructions that run on tensor or matrix cores."""


@dataclass(frozen=True)
class Listing:
    """Opcode counts of a program, and of its main loop: the innermost one with the most matrix instructions."""

    instructions: dict[str, int]
    loop_instructions: int
    loop_matrix: int


def read_sass(text: str) -> Listing:
    """Parse ``nvdisasm -c`` output."""
    return _read(text, _SASS_LABEL, _SASS_INSTRUCTION, _SASS_TARGET, skip=("NOP",))


def read_amdgcn(text: str) -> Listing:
    """Parse the assembly that Triton keeps for AMD targets."""
    return _read(text, _AMD_LABEL, _AMD_INSTRUCTION, _AMD_TARGET, skip=("s_nop", "s_code_end"))


def _read(
    text: str,
    label: re.Pattern[str],
    instruction: re.Pattern[str],
    target: re.Pattern[str],
    skip: tuple[str, ...],
) -> Listing:
    opcodes: list[str] = []
    labels: dict[str, int] = {}
    loops: list[tuple[int, int]] = []
    for line in text.splitlines():
        if found := label.match(line):
            labels[found[1]] = len(opcodes)
        elif found := instruction.match(line):
            opcode, operands = found[1], found[2]
            if opcode in skip:
                continue
            opcodes.append(opcode)
            to = target.search(operands)
            if to and ("BRA" in opcode or "branch" in opcode) and to[1] in labels:
                loops.append((labels[to[1]], len(opcodes)))
    best = (0, 0)
    for start, end in _innermost(opcodes, loops):
        matrix = sum(bool(MATRIX_OPCODES.match(op)) for op in opcodes[start:end])
        if matrix > best[1]:
            best = (end - start, matrix)
    return Listing(dict(Counter(opcodes).most_common()), *best)


def _innermost(opcodes: list[str], loops: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Loops with matrix instructions that hold no other such loop.

    A backward branch over the program's end is no loop: waits that rarely spin are placed behind it.
    """
    real = [
        (start, end)
        for start, end in loops
        if not any(op in ("EXIT", "s_endpgm") for op in opcodes[start:end])
        and any(MATRIX_OPCODES.match(op) for op in opcodes[start:end])
    ]
    return [
        outer
        for outer in real
        if not any(inner != outer and outer[0] <= inner[0] and inner[1] <= outer[1] for inner in real)
    ]
