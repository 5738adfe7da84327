"""Whether a target's compiler is installed here. Nothing is imported."""

from moe_codesign.errors import UserError
from moe_codesign.extras import how_to_install, is_installed

_PACKAGES = {"triton": ("triton",), "pallas": ("jax", "libtpu")}


def backend_of(target: str) -> str:
    """``triton`` for ``cuda:`` and ``hip:`` targets, ``pallas`` for TPU topologies."""
    return "triton" if target.startswith(("cuda:", "hip:")) else "pallas"


def missing_package(backend: str) -> str | None:
    """The first package of the backend's compiler that is not installed, or None."""
    return next((name for name in _PACKAGES[backend] if not is_installed(name)), None)


def require_compiler(target: str, what: str, *, recompile: bool = False) -> None:
    """Raise UserError, naming the extra to install, where ``what`` cannot be compiled here.

    ``recompile``: a compile was asked for; else ``what`` is not among the facts that come with the package.
    """
    backend = backend_of(target)
    if package := missing_package(backend):
        why = "" if recompile else " is not among the facts that come with the package, and"
        raise UserError(
            f"{what}{why} cannot be compiled here: {package} is not installed",
            fix=how_to_install(package),
        )
