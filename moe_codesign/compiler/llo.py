"""Read what the TPU compiler dumps: VLIW bundles, what they issue, static cycles, and its refusals."""

import re
from collections import Counter
from pathlib import Path

from moe_codesign.compiler.artifact import ProgramFacts, RegionFacts

_BUNDLE = re.compile(r"^\s*0x[0-9a-f]+\s+(?P<marker>[A-Z]{2})?\s*:(?P<loops>[ >]*)\{(?P<body>.*)")
_COMMENT = re.compile(r"/\*.*?\*/")
_INSTRUCTION = re.compile(r"=\s+([a-z]\w*(?:\.\w+)*)")
_BRANCH = re.compile(r"sbr\.rel \((?!!).*?target = \$region(\d+)")
_REGION = re.compile(r"(?:Start|Start/End empty) region (\d+)")
_MATRIX = re.compile(r"vmatmul[\w.]*")
_UNIT = re.compile(r"mxu(\d)")
_GRANULES = re.compile(r"/\*size_in_granules=\*/(%?\w+)")
_SPILL = re.compile(r"(?:vst|sst) \[[vs]mem:\[#allocation\d+_spill")
_CYCLES = re.compile(r"estimated_cycles:\s*(\d+)")
_ALLOCATION = re.compile(r"Allocation \(size=(\d+)\) would exceed memory \(size=(\d+)\)")
_VMEM = re.compile(r"[Ss]coped allocation with size ([\d.]+\w) and limit ([\d.]+\w)")

_PSEUDO = ("inlined_call_operand", "int_to_ptr", "sphi", "custom", "control")
"""Words of the listing that no unit executes."""


def unit_of(opcode: str) -> str | None:
    """The unit that issues an instruction, or None of one that is only the listing's."""
    if opcode.startswith(_PSEUDO):
        return None
    if opcode.startswith("vmat"):
        return "matrix"
    if opcode.startswith("vpop"):
        return "matrix result" if ".mr" in opcode else "transcendental"
    if opcode.startswith(("dma", "vsync")):
        return "copies"
    if opcode.startswith("vld"):
        return "vector load"
    if opcode.startswith("vst"):
        return "vector store"
    return "vector" if opcode.startswith("v") else "scalar"


def granule_bytes(target: str) -> int:
    """Bytes of one unit of a DMA's size in the listing: read off copies of known size (a test compiles one per TPU)."""
    return 64 if target.startswith("tpu7x") else 32


def read_program(folder: Path, name: str, target: str) -> ProgramFacts:
    """What the kernel ``name``'s final program holds.

    Raises:
        FileNotFoundError: the compiler left no such program.
    """
    for path in folder.glob(f"*-{name}*final_bundles.txt"):
        if "schedule-analysis" not in path.name:
            return parse_program(path.read_text(encoding="utf-8"), granule_bytes(target))
    raise FileNotFoundError(f"no final bundles of {name}")


def read_programs(folder: Path, target: str) -> dict[str, tuple[int | None, ProgramFacts]]:
    """Static cycles (where the compiler counted) and program of every kernel and fusion that was compiled."""
    found = {}
    for path in sorted(folder.glob("*final_bundles.txt")):
        name = re.sub(r"^\d+-|-\d+-final_bundles$", "", path.stem)
        if "schedule-analysis" in name or name.startswith(("TLP", "<")):  # the compiler's own frame
            continue
        counts = [
            _CYCLES.search(p.read_text(encoding="utf-8"))
            for p in folder.glob(f"{name}_TPU*static_llo_profile.textproto")
        ]
        cycles = int(counts[0][1]) if counts and counts[0] else None
        found[name] = (cycles, parse_program(path.read_text(encoding="utf-8"), granule_bytes(target)))
    return found


def parse_program(text: str, granule: int) -> ProgramFacts:
    """The facts of one listing, whose copies are counted in granules of ``granule`` bytes."""
    opcodes, slots, by_unit = Counter[str](), Counter[str](), Counter[str]()
    widest: dict[str, int] = {}
    regions: list[tuple[int, int, list[str], Counter[str]]] = []
    skipped: list[str] = []  # regions that a branch can jump to, and that have not begun yet
    bundles = spills = granules = dynamic = 0
    for line in text.splitlines():
        match = _BUNDLE.match(line)
        if match is None:
            continue
        for region in _REGION.findall(line):
            if region in skipped:
                del skipped[skipped.index(region) :]
        found = _INSTRUCTION.findall(_COMMENT.sub("", match["body"]))
        here = Counter(unit for opcode in found if (unit := unit_of(opcode)) is not None)
        for unit, count in here.items():
            widest[unit] = max(widest.get(unit, 0), count)
        opcodes.update(opcode for opcode in found if not opcode.startswith(_PSEUDO))
        slots.update(here)
        by_unit.update(f"mxu{u}" for op in _MATRIX.findall(match["body"]) for u in _UNIT.findall(op))
        spills += len(_SPILL.findall(match["body"]))
        for size in _GRANULES.findall(match["body"]):
            granules += int(size) if size.isdigit() else 0
            dynamic += not size.isdigit()
        # Empty bundles (a branch's delay) carry no mark of their loop.
        loops = match["loops"].count(">") if found or not regions else regions[-1][1]
        if not regions or (regions[-1][1], regions[-1][2]) != (loops, skipped):
            regions.append((bundles, loops, list(skipped), Counter()))
        regions[-1][3].update({"bundles": 1, **here})
        bundles += 1
        if branch := _BRANCH.search(line):
            skipped.append(branch[1])
    return ProgramFacts(
        bundles=bundles,
        slots=dict(slots),
        widest=widest,
        instructions=dict(opcodes.most_common()),
        matrix_by_unit=dict(sorted(by_unit.items())),
        spills=spills,
        dma_bytes=granules * granule,
        dynamic_dmas=dynamic,
        regions=[
            RegionFacts(start=start, bundles=count.pop("bundles"), loops=loops, conditional=bool(inside), slots=count)
            for start, loops, inside, count in regions
        ],
    )


def read_cycles(folder: Path, name: str) -> int:
    """The compiler's static cycle estimate of the kernel ``name``.

    Raises:
        FileNotFoundError: the compiler left none.
    """
    # The whole name, or the name before its number: fusion must not find fusion.1's where it has none.
    for pattern in (f"{name}_TPU*", f"{name}.[0-9]*_TPU*"):
        for path in folder.glob(f"{pattern}static_llo_profile.textproto"):
            if found := _CYCLES.search(path.read_text(encoding="utf-8")):
                return int(found[1])
    raise FileNotFoundError(f"no static profile of {name}")


def refusal(message: str) -> str | None:
    """The limit that a compiler error says was broken, in one line, or None if it is another error."""
    if "RESOURCE_EXHAUSTED" not in message and "vmem" not in message.lower():
        return None
    if found := _VMEM.search(message):
        return f"VMEM: needs {found[1]}, the compiler allows {found[2]} per kernel; use smaller tiles"
    if found := _ALLOCATION.search(message):
        asked, allowed = (int(size) / 2**20 for size in found.groups())
        return f"VMEM: needs {asked:.2f}M, the compiler allows {allowed:.2f}M per kernel; use smaller tiles"
    return "VMEM: " + " ".join(message.split())[:200]
