"""Compile a Pallas kernel for a TPU that is not here, and read the program. Runs in a child process.

libtpu reads its flags once, so the dump folder belongs to the process; it is emptied between probes.
"""

import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from moe_codesign.compiler.artifact import Artifact, Request, TpuFacts
from moe_codesign.compiler.llo import read_cycles, read_program, refusal

_PROBES = ((8, 1), (16, 1), (8, 2), (16, 2), (8, 4))
"""(visits, depth tiles): differences leave the prologue out; one depth tile keeps weights resident, so it is
its own case."""
_NAME = "grouped_matmul"


def prepare_process() -> Path:
    """Set libtpu's flags for this process and return its dump folder. Call before jax is imported."""
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
            "--xla_jf_dump_llo_pass_label_regex=final_bundles "
            f"--xla_jf_dump_static_llo_profile_to={folder}"
        ),
    }
    return folder


def compile_tpu(request: Request, folder: Path) -> Artifact:
    """Compile the probes of one request with Mosaic and libtpu; ``folder`` is the process's dump folder."""
    from moe_kernels.kernel import Problem, kernels

    kernel = kernels()[0][request.kernel]
    if reason := kernel.refuses(Problem(op=request.op, dtype=request.dtype), request.tile, request.target):
        return request.outcome("refused", reason)
    cycles: dict[str, int] = {}
    bundles, instructions = 0, dict[str, int]()
    start = time.perf_counter()
    try:
        for visits, depth in _PROBES:
            _empty(folder)
            _compile(request.target, *kernel.build(request.op, request.tile, visits, depth))
            cycles[f"{visits}x{depth}"] = read_cycles(folder, _NAME)
            if (visits, depth) == _PROBES[-1]:
                bundles, instructions = read_program(folder, _NAME)
    except Exception as error:  # whatever a compiler raises is a result
        seconds = time.perf_counter() - start
        if limit := refusal(str(error)):
            return request.outcome("refused", limit, compile_s=seconds)
        text = (str(error).strip() or repr(error)).splitlines()[0][:300]
        return request.outcome("failed", f"{type(error).__name__}: {text}", compile_s=seconds)
    finally:
        _empty(folder)
    seconds = time.perf_counter() - start
    return request.outcome("ok", compile_s=seconds, tpu=_facts(cycles, bundles, instructions))


def _facts(cycles: dict[str, int], bundles: int, instructions: dict[str, int]) -> TpuFacts:
    visit_1 = (cycles["16x1"] - cycles["8x1"]) / 8
    visit_2 = (cycles["16x2"] - cycles["8x2"]) / 8
    prologue = cycles["8x2"] - 8 * visit_2
    visit_4 = (cycles["8x4"] - prologue) / 8
    step = (visit_4 - visit_2) / 2
    if min(visit_1, visit_2, step) <= 0:
        raise ValueError(f"static cycles do not grow with the work: {cycles}")
    return TpuFacts(
        bundles=bundles,
        matrix_instructions=sum(n for op, n in instructions.items() if op.startswith("vmatmul")),
        instructions=instructions,
        cycles=cycles,
        prologue_cycles=max(prologue, 0.0),
        visit_cycles=visit_1,
        edge_cycles=visit_2 - 2 * step,
        step_cycles=step,
    )


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _compile(target: str, function: Any, arguments: list[Any]) -> None:
    import jax
    from jax.experimental import topologies
    from jax.sharding import AbstractDevice, AbstractMesh, SingleDeviceSharding, use_abstract_mesh

    device = topologies.get_topology_desc(platform="tpu", topology_name=target).devices[0]
    sharding = SingleDeviceSharding(device)
    # Lowering rules that ask for the chip would otherwise see the host.
    abstract = AbstractDevice(device_kind=device.device_kind, num_cores=1, platform="tpu")
    with use_abstract_mesh(AbstractMesh((1,), ("x",), abstract_device=abstract)):
        jax.jit(function).lower(
            *(jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding) for a in arguments)
        ).compile()
