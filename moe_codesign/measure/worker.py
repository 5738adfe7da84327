"""Measurements in a child process with a time limit: a kernel may crash or hang, the search goes on."""

import dataclasses
import os
import re
import signal
import sys
from types import TracebackType
from typing import Self

from moe_codesign.domain.failure import Failure, FailureKind
from moe_codesign.execution import LOCAL, Accelerator, Died, Done, Executor, WorkerPool
from moe_codesign.measure.job import LayerJob, Measurement
from moe_codesign.measure.presence import Platform
from moe_codesign.measure.protocol import Device, measure_layer

TIME_LIMIT_S = 120.0
ACCELERATOR_OF: dict[Platform, Accelerator | None] = {"cpu": None, "cuda": "GPU", "tpu": "TPU"}
"""What a measuring process has to itself, by its platform."""
_KILLED = Died(-signal.SIGKILL) if sys.platform != "win32" else None
_device: Device | None = None


def _measure(job: LayerJob, platform: Platform) -> list[Measurement | Failure]:
    global _device
    if _device is None:
        if platform == "cuda":
            from moe_codesign.measure.cuda_device import CudaDevice

            _device = CudaDevice()
        else:
            if platform == "cpu":
                os.environ["JAX_PLATFORMS"] = "cpu"
            from moe_codesign.measure.jax_device import JaxDevice

            _device = JaxDevice(platform)
    outcomes = measure_layer(job, _device)
    if any(isinstance(o, Failure) and re.search(r"CUDA error|HIP error", o.text) for o in outcomes):
        # A faulting kernel leaves the context useless for every later one: this process has to go.
        os._exit(70)
    return outcomes


class MeasuringProcess:
    """One child process that measures, one job at a time; replaced when it dies or hangs.

    It keeps the device and what was compiled for it from job to job. Use as a context manager.

    Args:
        platform: what it measures on.
        time_limit_s: of a job, for each of its candidates.
        executor: where the process is; over a cluster it has an accelerator to itself.
    """

    def __init__(self, platform: Platform, *, time_limit_s: float = TIME_LIMIT_S, executor: Executor = LOCAL) -> None:
        self.platform = platform
        self.time_limit_s = time_limit_s
        self._made = executor.pool(1, accelerator=ACCELERATOR_OF[platform])

    def __enter__(self) -> Self:
        self._pool: WorkerPool = self._made.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._made.__exit__(kind, error, trace)

    def measure(self, job: LayerJob) -> list[Measurement | Failure]:
        """An outcome per candidate. If the process dies or hangs, each candidate is tried again by itself.

        So is a single one, once, whose process got SIGKILL: no kernel does that, but a system that is short of memory.

        Raises:
            MachineError: no process can start.
        """
        limit_s = self.time_limit_s * max(1, len(job.candidates))
        called = self._pool.call(_measure, job, self.platform, time_limit_s=limit_s)
        if called == _KILLED and len(job.candidates) == 1:
            called = self._pool.call(_measure, job, self.platform, time_limit_s=limit_s)
        if isinstance(called, Done):
            return called.value
        if len(job.candidates) > 1:
            alone = (dataclasses.replace(job, candidates=(tiles,)) for tiles in job.candidates)
            return [outcome for one in alone for outcome in self.measure(one)]
        reason = (
            f"the measuring process died (exit code {called.exit_code})" if isinstance(called, Died) else str(called)
        )
        return [Failure(FailureKind.MEASUREMENT, reason)]
