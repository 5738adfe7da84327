"""Environment variables that change what the compilers make."""

import os

_PREFIXES = ("TRITON_", "MLIR_", "LLVM_", "PTXAS_", "DISABLE_", "XLA_", "JAX_")
_NO_MATTER = ("JAX_PLATFORMS", "JAX_COMPILATION_CACHE_DIR", "TRITON_CACHE_DIR", "TRITON_HOME")


def settings() -> dict[str, str]:
    """Those of this process, as ``DISABLE_PTXAS_OPT`` and ``TRITON_INTERPRET``, by name."""
    return {
        name: value
        for name, value in sorted(os.environ.items())
        if name.startswith(_PREFIXES) and name not in _NO_MATTER
    }


def forget_settings() -> None:
    """Take them out of this process's environment, before a compiler is imported."""
    for name in settings():
        del os.environ[name]
