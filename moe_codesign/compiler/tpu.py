"""Compile a Pallas kernel for a TPU that is not here, and read the program. Runs in a child process.

libtpu reads its flags once, so the dump folder belongs to the process; it is emptied between programs.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from moe_codesign.compiler.artifact import Compiled, CompileResult, ProgramFacts, TpuFacts
from moe_codesign.compiler.exceptions import of_tpu_error
from moe_codesign.compiler.llo import read_cycles, read_program
from moe_codesign.compiler.request import Request

_NAME = "grouped_matmul"


def prepare_process(*, profile: bool = True) -> Path:
    """Set libtpu's flags for this process and return its dump folder. Call before jax is imported.

    Args:
        profile: have static cycles counted, on which libtpu aborts where a grid's size is not known.
    """
    folder = Path(tempfile.mkdtemp(prefix="moe-codesign-llo-"))
    os.environ |= {
        "JAX_PLATFORMS": "cpu",
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": "v6e-4",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_LOG_DIR": "disabled",
        "TPU_MIN_LOG_LEVEL": "3",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "LIBTPU_INIT_ARGS": (
            f"--xla_jf_dump_to={folder} --xla_jf_dump_llo_text=true "
            # Without the pattern every pass of every program is dumped: hundreds of megabytes.
            "--xla_jf_dump_llo_pass_label_regex=final_bundles"
            + (f" --xla_jf_dump_static_llo_profile_to={folder}" if profile else "")
        ),
    }
    return folder


def compile_tpu(request: Request, folder: Path) -> CompileResult:
    """Compile the probes of one request with Mosaic and libtpu; ``folder`` is the process's dump folder."""
    from moe_kernels.registry import kernel_named

    kernel = kernel_named(request.kernel)
    assert kernel is not None
    assert kernel.build is not None
    start = time.perf_counter()
    found: list[tuple[Any, int, ProgramFacts]] = []
    try:
        for probe in kernel.build(request.op, request.tile):
            cycles, program = analyse(request.target, probe.function, probe.arguments, _NAME, folder)
            found.append((probe, cycles, program))
        facts = _facts(found)
    except Exception as error:  # whatever a compiler raises is a result
        return of_tpu_error(error, compiler=request.compiler, compile_s=time.perf_counter() - start)
    return Compiled(facts=facts, compiler=request.compiler, compile_s=time.perf_counter() - start)


def analyse(
    target: str, function: Callable[..., Any], arguments: Sequence[Any], name: str, folder: Path
) -> tuple[int, ProgramFacts]:
    """Static cycles and program of the kernel called ``name`` in a function of those shapes.

    Raises:
        FileNotFoundError: there is no such kernel in it, or the compiler left no profile.
    """
    empty(folder)
    try:
        compile_for(target, function, arguments)
        return read_cycles(folder, name), read_program(folder, name, target)
    finally:
        empty(folder)


def _facts(found: list[tuple[Any, int, ProgramFacts]]) -> TpuFacts:
    """A step's cycles as a bilinear function of its buckets and depth, from differences that leave the prologue out."""
    first, *plain = [(probe, cycles) for probe, cycles, _ in found if not probe.apart]
    prologue = 2.0 * first[1] - plain[0][1]  # of 4 visits and of 8
    step = {(probe.rows, probe.k): (cycles - prologue) / probe.visits for probe, cycles in plain}
    few, many = min(rows for rows, _ in step), max(rows for rows, _ in step)
    short, long = min(k for _, k in step), max(k for _, k in step)
    per_k = {rows: (step[rows, long] - step[rows, short]) / (long - short) for rows in (few, many)}
    at_zero = {rows: step[rows, short] - per_k[rows] * short for rows in (few, many)}
    more = many / few - 1.0
    depth_bucket = (per_k[many] - per_k[few]) / more if more else 0.0
    bucket = (at_zero[many] - at_zero[few]) / more if more else 0.0
    if min(*step.values(), *per_k.values()) <= 0:
        raise ValueError(f"static cycles do not grow with the work: {step}")
    without, with_copies, whole = [program for probe, _, program in found if probe.apart]
    return TpuFacts(
        cycles={f"{p.visits}x{p.rows}x{p.k}": cycles for p, cycles, _ in found if not p.apart},
        prologue_cycles=max(prologue, 0.0),
        fixed_cycles=at_zero[few] - bucket,
        bucket_cycles=bucket,
        depth_fixed_cycles=per_k[few] - depth_bucket,
        depth_bucket_cycles=depth_bucket,
        issue_cycles=float(max(with_copies.bundles - without.bundles, 0)),
        program=whole,
    )


def empty(folder: Path) -> None:
    """Take out what the last program left in the dump folder."""
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def compile_for(target: str, function: Callable[..., Any], arguments: Sequence[Any]) -> None:
    """Compile a function of arrays for a TPU topology. Raises what the compiler raises."""
    import jax
    from jax.experimental import topologies
    from jax.sharding import AbstractDevice, AbstractMesh, AxisType, SingleDeviceSharding, use_abstract_mesh

    device = topologies.get_topology_desc(platform="tpu", topology_name=target).devices[0]
    sharding = SingleDeviceSharding(device)
    # Lowering rules that ask for the chip would otherwise see the host.
    abstract = AbstractDevice(device_kind=device.device_kind, num_cores=1, platform="tpu")
    with use_abstract_mesh(AbstractMesh((1,), ("x",), axis_types=(AxisType.Auto,), abstract_device=abstract)):
        jax.jit(function).lower(
            *(jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding) for a in arguments)
        ).compile()
