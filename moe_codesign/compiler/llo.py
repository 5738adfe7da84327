"""Read what the TPU compiler dumps: VLIW bundles, instructions, static cycles, and its refusals."""

import re
from collections import Counter
from pathlib import Path

_BUNDLE = re.compile(r"^\s*0x[0-9a-f]+\s")
_INSTRUCTION = re.compile(r"=\s+([a-z]\w*(?:\.\w+)?)")
_CYCLES = re.compile(r"estimated_cycles:\s*(\d+)")
_VMEM = re.compile(r"[Ss]coped allocation with size ([\d.]+\w) and limit ([\d.]+\w)")


def read_program(folder: Path, name: str) -> tuple[int, dict[str, int]]:
    """Bundles of the kernel ``name``'s final program, and its instructions by opcode.

    Raises:
        FileNotFoundError: the compiler left no such program.
    """
    for path in folder.glob(f"*-{name}*final_bundles.txt"):
        if "schedule-analysis" in path.name:
            continue
        bundles, opcodes = 0, Counter[str]()
        with path.open() as lines:
            for line in lines:
                if _BUNDLE.match(line):
                    bundles += 1
                    opcodes.update(_INSTRUCTION.findall(line))
        return bundles, dict(opcodes.most_common())
    raise FileNotFoundError(f"no final bundles of {name}")


def read_cycles(folder: Path, name: str) -> int:
    """The compiler's static cycle estimate of the kernel ``name``.

    Raises:
        FileNotFoundError: the compiler left none.
    """
    for path in folder.glob(f"{name}*static_llo_profile.textproto"):
        if found := _CYCLES.search(path.read_text()):
            return int(found[1])
    raise FileNotFoundError(f"no static profile of {name}")


def refusal(message: str) -> str | None:
    """The limit that a compiler error says was broken, in one line, or None if it is another error."""
    if "RESOURCE_EXHAUSTED" not in message and "vmem" not in message.lower():
        return None
    if found := _VMEM.search(message):
        return f"VMEM: needs {found[1]}, the compiler allows {found[2]} per kernel; use smaller tiles"
    return "VMEM: " + " ".join(message.split())[:200]
