"""What a compiler made of a kernel or function, for a terminal."""

from collections.abc import Sequence

from rich.console import Console

from moe_codesign.answers.compiled import CompiledFunction, CompiledKernel
from moe_codesign.chips import TpuChip, load_chip
from moe_codesign.compiler.artifact import Compiled, GpuFacts, ProgramFacts, TpuFacts
from moe_codesign.cost.ours.tpu_step import Step, step_of

_SHORTEST = 0.05
"""Regions of a program below this share of its bundles are not shown."""


def print_compiled(console: Console, chip: str, compiled: Sequence[CompiledKernel]) -> None:
    """Facts of each op's binary."""
    for one in compiled:
        asked, outcome = one.request, one.outcome
        tile = ", ".join(f"{k}={v}" for k, v in asked.tile.as_dict().items())
        compiler = outcome.compiler if isinstance(outcome, Compiled) else asked.compiler
        console.print(f"{asked.kernel} {asked.op} on {chip} ({asked.target}, {compiler})")
        console.print(f"  tile              {tile}", highlight=False)
        if one.refused:
            console.print(f"  {'refused' if isinstance(outcome, Compiled) else outcome.status}: {one.refused}")
        if one.note:
            console.print(f"  note: {one.note}", highlight=False, soft_wrap=True)
        if isinstance(gpu := one.facts, GpuFacts):
            console.print(f"  registers         {gpu.registers} a thread, {gpu.spill_bytes} bytes spilled")
            console.print(f"  shared memory     {gpu.shared_bytes} bytes a block")
            console.print(f"  code              {gpu.code_bytes} bytes")
            per_matrix = gpu.loop_instructions / max(gpu.loop_matrix, 1)
            console.print(
                f"  main loop         {gpu.loop_instructions} instructions a warp, {gpu.loop_matrix} of them matrix "
                f"({per_matrix:.1f} issued per matrix instruction)"
            )
            _print_opcodes(console, gpu.instructions, _GPU_GROUPS)
        if isinstance(tpu := one.facts, TpuFacts):
            _print_step(console, step_of(asked, tpu, TpuChip.of(load_chip(chip))))
            _print_program(console, tpu.program)


def print_function(console: Console, function: str, chip: str, found: CompiledFunction) -> None:
    """Every kernel of a compiled function, longest first."""
    console.print(f"{function} on {chip}", highlight=False)
    for text in (found.refused, found.note):
        if text:
            console.print(f"  {text}", highlight=False)
    for kernel in found.facts.kernels:
        cycles = "not counted" if kernel.cycles is None else f"{kernel.cycles}"
        console.print(f"{kernel.name}\n  static cycles     {cycles}", highlight=False)
        _print_program(console, kernel.program)


def _print_step(console: Console, step: Step) -> None:
    console.print(f"  a step            {step.describe()}", highlight=False)
    for name, cycles in sorted(step.cycles.items(), key=lambda item: -item[1]):
        console.print(f"    {name:<18}{cycles:8.0f} cycles  {'#' * round(40 * cycles / step.longest)}", highlight=False)
    console.print(f"  what fills it     {step.limiter}; {step.advice}", highlight=False, soft_wrap=True)


def _print_program(console: Console, program: ProgramFacts) -> None:
    console.print(
        f"  program           {program.bundles} bundles, {program.spills} spills, {program.dma_bytes} bytes of copies "
        f"of known size, {program.dynamic_dmas} copies of other sizes",
        highlight=False,
    )
    for unit, count in sorted(program.slots.items(), key=lambda item: -item[1]):
        console.print(
            f"    {unit:<18}{count:8} in {program.bundles} bundles, at most {program.widest[unit]} in one",
            highlight=False,
        )
    short = 0
    for region in program.regions:
        if region.bundles < program.bundles * _SHORTEST:
            short += 1
        else:
            where = "once" if region.loops == 0 else f"in {region.loops} loops" if region.loops > 1 else "in the loop"
            slots = _first([f"{n} {unit}" for unit, n in sorted(region.slots.items(), key=lambda item: -item[1])], 4)
            console.print(
                f"    from {region.start:<6} {region.bundles:6} bundles {where}"
                f"{', on a condition' if region.conditional else ''}: {slots}",
                highlight=False,
                soft_wrap=True,
            )
    if short:
        console.print(f"    not shown: {short} regions, each below {_SHORTEST:.0%} of the bundles", highlight=False)


def _first(texts: Sequence[str], most: int) -> str:
    """The first of them, and how many there are beside."""
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")


_GPU_GROUPS = {
    "matrix, wgmma": ("GMMA",),
    "matrix, tcgen05": ("UTCHMMA", "UTCQMMA", "UTCOMMA", "UTCIMMA"),
    "matrix, mma": ("HMMA.", "QMMA.", "IMMA."),
    "matrix, MFMA": ("mfma", "smfmac"),
    "async copies": ("LDGSTS", "UTMALDG", "UBLKCP", "_lds_"),
    "global loads": ("LDG.", "global_load", "buffer_load"),
    "shared memory": ("LDS.", "STS.", "LDSM", "STSM", "ds_"),
    "tensor memory": ("LDTM", "STTM"),
    "atomics": ("RED", "ATOM", "atomic"),
}


def _print_opcodes(console: Console, counts: dict[str, int], groups: dict[str, tuple[str, ...]]) -> None:
    console.print(f"  instructions      {sum(counts.values())}", highlight=False)
    rest = dict(counts)
    for name, words in groups.items():
        of_group = [op for op in rest if any(word in op for word in words)]
        # The first group that fits has the opcode: UTMALDG is no LDG.
        found = [f"{rest.pop(op)} {op}" for op in of_group]
        if found:
            console.print(f"    {name:<18}{_first(found, 8)}", highlight=False, soft_wrap=True)
