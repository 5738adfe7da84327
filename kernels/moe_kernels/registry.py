"""The kernels that there are, in order, and which of them is the default of each backend.

A new kernel is one line here and one file: a module that defines ``KERNEL`` (:class:`moe_kernels.kernel.Kernel`). A
file that no line names is no kernel. Modules that import no compiler can be listed and asked on any machine; one that
does (say a single file that imports Triton at its top) is reported as missing where the compiler is not installed.
"""

import functools
import importlib

from moe_kernels.kernel import Kernel

KERNELS = {
    "triton.grouped_gemm": "moe_kernels.triton.grouped_gemm.declaration",
    "triton.grouped_matmul": "moe_kernels.triton.grouped_matmul",
    "pallas.grouped_matmul": "moe_kernels.pallas.grouped_matmul.declaration",
    "pallas.host_matmul": "moe_kernels.pallas.host_matmul.declaration",
}
"""The module that declares each kernel, by the kernel's name (``backend.kernel``)."""

DEFAULTS = {
    "triton": "triton.grouped_gemm",
    "pallas": "pallas.grouped_matmul",
}
"""The kernel that an accelerator of this backend uses unless another is named."""

HOST_DEFAULTS = {
    "pallas": "pallas.host_matmul",
}
"""The same where the host itself is the chip."""


class MissingKernelError(ImportError):
    """A kernel's module cannot be imported here; the text says why, and ``name`` is the module that is missing."""


def kernels(backend: str | None = None) -> tuple[dict[str, Kernel], dict[str, MissingKernelError]]:
    """All kernels by name, in the registry's order, and for those that cannot be imported here the reason.

    Args:
        backend: the kernels of this backend alone.

    Raises:
        ValueError: a module declares a kernel of another name than its line says.
    """
    found: dict[str, Kernel] = {}
    missing: dict[str, MissingKernelError] = {}
    for name in KERNELS:
        if backend in (None, name.split(".", 1)[0]):
            try:
                found[name] = _declared(name)
            except MissingKernelError as error:
                missing[name] = error
    return found, missing


def kernel_named(name: str) -> Kernel | None:
    """The kernel of that name; None if there is no such kernel, or if it cannot be imported here."""
    try:
        return _declared(name) if name in KERNELS else None
    except MissingKernelError:
        return None


def default_kernel(backend: str, *, on_host: bool = False) -> Kernel:
    """The kernel that a chip of this backend uses unless another is named.

    Args:
        backend: ``triton`` or ``pallas``.
        on_host: the chip is the host itself.

    Raises:
        LookupError: the backend has no kernel there.
        MissingKernelError: it has one, which cannot be imported here.
    """
    defaults = HOST_DEFAULTS if on_host else DEFAULTS
    if backend not in defaults:
        where = " on the host" if on_host else ""
        raise LookupError(f"backend {backend!r} has no kernel{where}; use one of {', '.join(defaults)}")
    return _declared(defaults[backend])


@functools.cache
def _declared(name: str) -> Kernel:
    module = KERNELS[name]
    try:
        kernel: Kernel = importlib.import_module(module).KERNEL
    except ImportError as error:
        raise MissingKernelError(f"{error}, which {module} imports", name=error.name) from None
    if kernel.name != name:
        raise ValueError(f"{module} declares {kernel.name!r}, moe_kernels.registry lists it as {name!r}; use one name")
    return kernel
