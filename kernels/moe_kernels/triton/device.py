"""Where kernels run: the target and the cores of a tensor's device, and what has to hold while a kernel is launched."""

import contextlib
import functools
from contextlib import AbstractContextManager

import torch
import triton.language as tl
from triton.runtime.interpreter import InterpretedFunction

_INTERPRETED_CORES = 3
"""The interpreter's cores: few, so that persistent programs walk several tiles in it."""


def interpreting() -> bool:
    """Whether Triton was imported to interpret its kernels. Setting ``TRITON_INTERPRET`` later changes nothing."""
    return isinstance(tl.sum, InterpretedFunction)


@functools.cache
def target_of(device: torch.device) -> str | None:
    """The compile target of a device, ``cuda:90`` or ``hip:gfx942``; None for the interpreter, which runs anything.

    Raises:
        ValueError: the device is no GPU, and Triton does not run in its interpreter.
    """
    if device.type == "cuda":
        if torch.version.hip:
            return "hip:" + torch.cuda.get_device_properties(device).gcnArchName.split(":")[0]
        major, minor = torch.cuda.get_device_capability(device)
        return f"cuda:{10 * major + minor}"
    if not interpreting():
        raise ValueError(
            f"tensors are on {device}: move them to a GPU, or set TRITON_INTERPRET=1 before importing triton"
        )
    return None


@functools.cache
def cores_of(device: torch.device) -> int:
    """The number of cores (streaming multiprocessors, compute units) of a device."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).multi_processor_count)
    return _INTERPRETED_CORES


def launching_on(device: torch.device) -> AbstractContextManager[object]:
    """What every launch of a kernel stands in: ``with launching_on(x.device): kernel[grid](x, ...)``.

    Triton launches on the current device, whatever device its tensors are on, so theirs is made the current one. Where
    Triton interprets, its narrow floats are corrected first (:mod:`moe_kernels.triton.interpreter`).

    Raises:
        ValueError: the device is no GPU, and Triton does not run in its interpreter.
    """
    if interpreting():
        from moe_kernels.triton.interpreter import correct_narrow_floats

        correct_narrow_floats()
    target_of(device)
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
