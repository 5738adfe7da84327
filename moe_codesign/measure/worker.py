"""Measurements in a child process with a time limit: a kernel may crash or hang, the search goes on."""

import dataclasses
import multiprocessing
import os
import re
from concurrent.futures import TimeoutError as FutureTimeout
from types import TracebackType
from typing import Self

from pebble import ProcessExpired, ProcessPool

from moe_codesign.measure.job import Failure, LayerJob, Outcome
from moe_codesign.measure.presence import Platform
from moe_codesign.measure.protocol import Device, measure_layer

TIME_LIMIT_S = 120.0
_device: Device | None = None


def _measure(job: LayerJob, platform: Platform) -> list[Outcome]:
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
    if any(isinstance(o, Failure) and re.search(r"CUDA error|HIP error", o.reason) for o in outcomes):
        # A faulting kernel leaves the context useless for every later one: this process has to go.
        os._exit(70)
    return outcomes


class Bench:
    """One child process that measures, one job at a time; replaced when it dies or hangs.

    Use as a context manager.
    """

    def __init__(self, platform: Platform, *, time_limit_s: float = TIME_LIMIT_S) -> None:
        self.platform = platform
        self.time_limit_s = time_limit_s
        self._pool = ProcessPool(max_workers=1, context=multiprocessing.get_context("spawn"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.stop()
        self._pool.join()

    def measure(self, job: LayerJob) -> list[Outcome]:
        """An outcome per candidate. If the process dies or hangs, each candidate is tried again by itself."""
        limit = self.time_limit_s * max(1, len(job.candidates))
        try:
            outcomes: list[Outcome] = self._pool.schedule(_measure, args=[job, self.platform], timeout=limit).result()
        except FutureTimeout:
            reason = f"no result within {limit:g} s"
        except ProcessExpired as error:
            reason = f"the measuring process died (exit code {error.exitcode})"
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"[:300]
        else:
            return outcomes
        if len(job.candidates) == 1:
            return [Failure(tiles=job.candidates[0], reason=reason)]
        alone = (dataclasses.replace(job, candidates=(tiles,)) for tiles in job.candidates)
        return [outcome for one in alone for outcome in self.measure(one)]
