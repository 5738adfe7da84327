"""Coefficients of public ragged_dot kernels on TPUs, from ragged_dot.toml."""

from dataclasses import dataclass

from moe_codesign.calibrations.ragged_dot import Fitted, fitted_of
from moe_codesign.chips import Chip

_LIKE = "tpu_v6e"
"""Whose coefficients a chip without its own has."""


@dataclass(frozen=True)
class Coefficients(Fitted):
    """What is fitted of a chip.

    Args:
        matrix_efficiency: share of peak in a step.
        step_us: of a step, what the matrix units are not at work.
        hbm_efficiency: of peak bandwidth (over 1: rows or results that stayed in VMEM were counted).
    """

    matrix_efficiency: float
    step_us: float
    hbm_efficiency: float


def coefficients_of(chip: Chip) -> tuple[Coefficients, tuple[float, float], str]:
    """Coefficients, interval and warning; see :func:`moe_codesign.cost.ragged_dot.fitted_of`."""
    values, interval, warning = fitted_of(chip, Coefficients.names(), _LIKE)
    return Coefficients.from_array(values), interval, warning
