"""Coefficients of public ragged_dot kernels on GPUs, and of the interval, from ragged_dot.toml."""

import functools
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

from moe_codesign.chips import Chip

FITTED = Path(__file__).parent / "ragged_dot.toml"
_LIKE = "h100_sxm"
"""Whose coefficients a chip without its own has."""
_UNKNOWN_INTERVAL = (0.6, 2.4)
"""Of a chip without its own, as of the cost model that is not calibrated; see results/interval_coverage.md."""


@dataclass(frozen=True)
class Fitted:
    """Numbers that are fitted, in the order of their fields."""

    @classmethod
    def from_array(cls, values: Sequence[float]) -> Self:
        """All of them."""
        return cls(*(float(value) for value in values))

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Of the fields."""
        return tuple(field.name for field in fields(cls))


@dataclass(frozen=True)
class Coefficients(Fitted):
    """What is fitted of a chip.

    Args:
        matrix_efficiency: share of peak in a full loop.
        rows_kept: of the L2, how much keeps rows from column to column (over 1: columns run close together).
        walk_us_per_group: a step of the walk over the groups' sizes.
    """

    matrix_efficiency: float
    rows_kept: float
    walk_us_per_group: float


@functools.cache
def _fitted() -> dict[str, dict[str, float]]:
    return {name: found for name, found in tomllib.loads(FITTED.read_text()).items() if isinstance(found, dict)}


def fitted_of(chip: Chip, names: Sequence[str], like: str) -> tuple[list[float], tuple[float, float], str]:
    """Coefficients of those names, interval (low and high over the estimate), a warning where they are ``like``'s."""
    found = _fitted().get(chip.name)
    own = found or _fitted()[like]
    values = [own[name] for name in names]
    if found is None:
        return values, _UNKNOWN_INTERVAL, f"coefficients of {like}: no grouped matmul of {chip.name} is measured"
    return values, (own["low"], own["high"]), ""


def coefficients_of(chip: Chip) -> tuple[Coefficients, tuple[float, float], str]:
    """Coefficients, interval and warning; see :func:`fitted_of`."""
    values, interval, warning = fitted_of(chip, Coefficients.names(), _LIKE)
    return Coefficients.from_array(values), interval, warning
