"""Versions of the packages that a result depends on, read from their metadata; nothing is imported."""

import contextlib
import functools
import importlib.metadata
import platform


def provenance() -> dict[str, str]:
    """Versions that a result depends on."""
    found = {"python": platform.python_version(), "platform": platform.machine()}
    for package in ("moe-codesign", "triton", "torch", "jax", "libtpu", "optuna", "numpy"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


_COMPILERS = {"triton": ("triton",), "pallas": ("jax", "jaxlib", "libtpu")}


@functools.cache
def compiler_version(backend: str) -> str:
    """``triton 3.7.1``, or those of jax, jaxlib and libtpu; read from the packages' metadata, nothing imported."""
    parts = []
    for package in _COMPILERS[backend]:
        try:
            parts.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            parts.append(f"{package} absent")
    return ", ".join(parts)
