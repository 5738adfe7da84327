"""Which device of this machine a chip is."""

import functools
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from moe_codesign.chips import Chip, GpuChip, HostChip, TpuChip
from moe_codesign.execution import Done, Executor
from moe_codesign.extras import how_to_install, is_installed

Platform = Literal["cpu", "cuda", "tpu"]
_ASK_S = 180.0
_GPU_FILES, _TPU_FILES = ("/dev/nvidia0", "/dev/kfd"), ("/dev/accel0", "/dev/vfio/0")


def missing_package(chip: Chip) -> str | None:
    """The package that measuring this chip lacks, where a device of its kind is in this machine; else None."""
    if isinstance(chip, HostChip) or (isinstance(chip, TpuChip) and _present(*_TPU_FILES)):
        needed: tuple[str, ...] = ("jax",)
    elif isinstance(chip, GpuChip) and _present(*_GPU_FILES):
        needed = ("torch", "triton")
    else:
        needed = ()
    return next((package for package in needed if not is_installed(package)), None)


def not_measured(chips: Iterable[Chip]) -> list[str]:
    """One line for each package without which chips that may be in this machine are estimated and not measured."""
    lacking: dict[str, list[str]] = {}
    for chip in chips:
        if package := missing_package(chip):
            lacking.setdefault(package, []).append(chip.name)
    return [
        f"times of {', '.join(names)} are estimates: measuring needs {package}, which is not installed; "
        + how_to_install(package)
        for package, names in lacking.items()
    ]


def devices_over(chips: Sequence[Chip], executor: Executor) -> dict[str, Platform | None]:
    """By chip, the platform to measure it on where an executor's measuring processes run; None where it is not there.

    A host chip is this machine. A cluster's accelerators are asked what they are, by a process that has one of them.

    Raises:
        MachineError: no process can start there.
    """
    found: dict[str, Platform | None] = {}
    for kind in executor.accelerators():
        asked = [chip for chip in chips if isinstance(chip, GpuChip if kind == "GPU" else TpuChip)]
        if asked:
            with executor.pool(1, accelerator=kind) as pool:
                answer = pool.call(_devices, asked, time_limit_s=_ASK_S)
            found |= answer.value if isinstance(answer, Done) else {}
    return {chip.name: found[chip.name] if chip.name in found else device_for(chip) for chip in chips}


def _devices(chips: Sequence[Chip]) -> dict[str, Platform | None]:
    return {chip.name: device_for(chip) for chip in chips}


def device_for(chip: Chip) -> Platform | None:
    """The platform to measure this chip on, if it is here and what its kernels need is installed."""
    if missing_package(chip):
        return None
    if isinstance(chip, HostChip):
        return "cpu"
    if isinstance(chip, GpuChip) and _present(*_GPU_FILES):
        import torch

        if torch.cuda.is_available():
            total = torch.cuda.get_device_properties(0).total_memory
            same_memory = abs(total / chip.memory.hbm_bytes - 1) < 0.15
            if same_memory and is_device(chip, torch.cuda.get_device_name()):
                return "cuda"
    # A TPU host shows its chips as /dev/accel* (v4, v5) or /dev/vfio/* (v6e on). A chip of two devices is not
    # measured: one call runs on one of them.
    if (
        isinstance(chip, TpuChip)
        and chip.core.devices_per_chip == 1
        and _present(*_TPU_FILES)
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
        done = subprocess.run(
            [sys.executable, "-P", "-c", script], capture_output=True, text=True, timeout=120, check=False
        )
    except subprocess.TimeoutExpired:
        return ""
    return done.stdout.strip()


def _present(*paths: str) -> bool:
    return any(Path(path).exists() for path in paths)


def is_device(chip: GpuChip, device_name: str) -> bool:
    """Whether a driver's name for a GPU is one that the chip's file has, or else says the chip file's product."""
    return device_name.replace(" ", "_") in chip.device_names or same_product(chip.product, device_name)


def same_product(product: str, device_name: str) -> bool:
    """Whether ``NVIDIA H100 80GB HBM3`` is the chip file's ``NVIDIA H100 SXM5 80 GB``: the model word decides."""
    word = re.search(r"\b([A-Z]{1,2}\d{1,4}[A-Z]?)\b", product)
    if ("PCIe" in product) != ("pcie" in device_name.lower()):
        return False
    return word is not None and re.search(rf"\b{word[1]}\b", device_name) is not None
