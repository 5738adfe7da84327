"""Measurements in a child process with a time limit: a kernel may crash or hang, the search goes on."""

import dataclasses
import functools
import multiprocessing
import os
import re
import subprocess
import sys
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from pebble import ProcessExpired, ProcessPool

from moe_codesign.chips import Chip
from moe_codesign.measure.job import Failure, LayerJob, Outcome
from moe_codesign.measure.protocol import Device, measure_layer

Platform = Literal["cpu", "cuda", "tpu"]
TIME_LIMIT_S = 120.0

_device: Device | None = None


def device_for(chip: Chip) -> Platform | None:
    """The platform to measure this chip on, if it is here: the host always is."""
    if chip.is_host:
        return "cpu"
    if chip.backend == "triton" and _present("/dev/nvidia0", "/dev/kfd"):
        import torch

        if torch.cuda.is_available():
            total = torch.cuda.get_device_properties(0).total_memory
            same_memory = abs(total / chip.memory.hbm_bytes - 1) < 0.15
            if same_memory and _same_product(chip.product, torch.cuda.get_device_name()):
                return "cuda"
    # A TPU host shows its chips as /dev/accel* (v4, v5) or /dev/vfio/* (v6e on). A chip of two devices is not
    # measured: one call runs on one of them.
    if (
        chip.backend == "pallas"
        and chip.core.devices_per_chip == 1
        and _present("/dev/accel0", "/dev/vfio/0")
        and _TPU_KINDS.get(_tpu_kind()) == chip.name
    ):
        return "tpu"
    return None


_TPU_KINDS = {"TPU v5 lite": "tpu_v5e", "TPU v5": "tpu_v5p", "TPU v6 lite": "tpu_v6e"}


@functools.cache
def _tpu_kind() -> str:
    """The kind of this machine's TPU, asked in a process of its own: libtpu locks the chip and may abort."""
    script = "import jax; print(jax.devices('tpu')[0].device_kind)"
    try:
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    except subprocess.TimeoutExpired:
        return ""
    return done.stdout.strip()


def _present(*paths: str) -> bool:
    return any(Path(path).exists() for path in paths)


def _same_product(product: str, device_name: str) -> bool:
    """Whether ``NVIDIA H100 80GB HBM3`` is the chip file's ``NVIDIA H100 SXM5 80 GB``: the model word decides."""
    word = re.search(r"\b([A-Z]{1,2}\d{2,4}[A-Z]?)\b", product)
    if ("PCIe" in product) != ("pcie" in device_name.lower()):
        return False
    return word is not None and re.search(rf"\b{word[1]}\b", device_name) is not None


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
