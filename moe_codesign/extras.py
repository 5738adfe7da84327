"""Packages that only some work needs: whether they are installed, and the line that says how to get them."""

import functools
import importlib.util

from moe_codesign.errors import UserError

EXTRA_OF = {
    "torch": "gpu",
    "triton": "gpu",
    "ml_dtypes": "gpu",
    "jax": "tpu",
    "jaxlib": "tpu",
    "libtpu": "tpu",
    "pyarrow": "parquet",
    "scipy": "calibrate",
    "catboost": "calibrate",
    "aiconfigurator_core": "aiconfigurator",
    "psycopg": "postgresql",
    "ray": "ray",
}
"""The project's optional dependencies that install a package."""


@functools.cache
def is_installed(package: str) -> bool:
    """Whether a package is there; it is not imported."""
    return importlib.util.find_spec(package) is not None


def how_to_install(package: str) -> str:
    """The command that installs a package of :data:`EXTRA_OF`."""
    return f'pip install "moe-codesign[{EXTRA_OF[package]}]"'


def require(package: str, what: str) -> None:
    """Raise UserError, naming the extra to install, where ``what`` needs a package that is not there."""
    if not is_installed(package):
        raise UserError(f"{what} needs {package}, which is not installed", fix=how_to_install(package))
