"""Compile a Triton kernel for a GPU that is not here, and read the binary. Runs in a child process."""

import re
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from moe_codesign.compiler.artifact import Compiled, CompileResult, GpuFacts
from moe_codesign.compiler.exceptions import named_line, of_gpu_error
from moe_codesign.compiler.request import Request
from moe_codesign.compiler.sass import read_amdgcn, read_sass
from moe_kernels.registry import kernel_named


def compile_gpu(request: Request) -> CompileResult:
    """Compile one request, whose target is ``cuda:SM`` or ``hip:GFX``, with Triton."""
    kernel = kernel_named(request.kernel)
    assert kernel is not None
    assert kernel.build is not None
    start = time.perf_counter()
    try:
        source, options = kernel.build(request.op, request.tile, request.dtype, request.target)
        facts = binary_facts(source, options, request.target)
    except Exception as error:  # whatever a compiler raises is a result
        return of_gpu_error(error, named_line(error), compiler=request.compiler, compile_s=time.perf_counter() - start)
    return Compiled(facts=facts, compiler=request.compiler, compile_s=time.perf_counter() - start)


def binary_facts(source: Any, options: dict[str, Any], target: str) -> GpuFacts:
    """Compile any Triton source for ``cuda:SM`` or ``hip:GFX`` and read the binary. Raises what the compiler raises."""
    import triton

    with tempfile.TemporaryDirectory(prefix="moe-codesign-") as scratch, triton.knobs.cache.scope():
        # Triton's own cache would make compile times and failures depend on earlier runs.
        triton.knobs.cache.dir = scratch
        compiled = triton.compile(source, target=gpu_target(target), options=options)
        return _nvidia(compiled, Path(scratch)) if target.startswith("cuda:") else _amd(compiled)


def gpu_target(target: str) -> Any:
    """``cuda:SM`` or ``hip:GFX`` as Triton has it."""
    from triton.backends.compiler import GPUTarget

    backend, arch = target.split(":")
    return GPUTarget(backend, int(arch), 32) if backend == "cuda" else GPUTarget(backend, arch, 64)


def _tool(name: str) -> str:
    import triton

    return str(Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name)


def _nvidia(compiled: Any, scratch: Path) -> GpuFacts:
    cubin = scratch / "kernel.cubin"
    cubin.write_bytes(compiled.asm["cubin"])
    usage = subprocess.run([_tool("cuobjdump"), "-res-usage", cubin], capture_output=True, text=True, check=True).stdout
    listing = read_sass(
        # Without its analysis of the data flow, of which nothing is read, it takes three quarters of the time.
        subprocess.run([_tool("nvdisasm"), "-c", "-ndf", cubin], capture_output=True, text=True, check=True).stdout
    )
    found = {name: int(value) for name, value in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", usage)}
    if "REG" not in found or not listing.instructions:
        raise RuntimeError("cuobjdump or nvdisasm printed nothing that could be read")
    local = sum(n for op, n in listing.instructions.items() if op.startswith(("STL", "LDL")))
    return GpuFacts(
        registers=found["REG"],
        # A stack that is read and written is a spill; one that is not is an ABI leftover.
        spill_bytes=found["STACK"] + found["LOCAL"] if local else 0,
        stack_bytes=found["STACK"],
        shared_bytes=compiled.metadata.shared,
        code_bytes=sum(listing.instructions.values()) * 16,
        instructions=listing.instructions,
        loop_instructions=listing.loop_instructions,
        loop_matrix=listing.loop_matrix,
    )


def _amd(compiled: Any) -> GpuFacts:
    text = compiled.asm["amdgcn"]

    def number(pattern: str) -> int:
        match = re.search(pattern, text)
        return int(match[1]) if match else 0

    listing = read_amdgcn(text)
    return GpuFacts(
        registers=number(r"\.vgpr_count:\s+(\d+)") + number(r"\.agpr_count:\s+(\d+)"),
        spill_bytes=4 * number(r"\.vgpr_spill_count:\s+(\d+)"),
        stack_bytes=number(r"\.private_segment_fixed_size:\s+(\d+)"),
        shared_bytes=compiled.metadata.shared,
        code_bytes=number(r"; codeLenInByte = (\d+)"),
        instructions=listing.instructions,
        loop_instructions=listing.loop_instructions,
        loop_matrix=listing.loop_matrix,
        waves_per_simd=number(r"; Occupancy: (\d+)") or None,
    )
