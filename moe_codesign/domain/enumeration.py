"""What came of every point of a finite space on one chip."""

from dataclasses import dataclass, field

from pydantic import ConfigDict

from moe_codesign.domain.failure import FailureKind


@dataclass(frozen=True, kw_only=True)
class Enumeration:
    """Counts of a space whose every shape was judged, and timed where it met the constraints.

    Args:
        chip: name of the chip.
        points: shapes of the space.
        feasible: of these, shapes that have a time under every workload.
        kept: of these, shapes that are stored as trials: the frontier and what comes nearest to it.
        refused: how many shapes were ruled out, by kind of failure.
        importances: which fields mattered among the feasible ones: by objective, each field's share; see
            :mod:`moe_codesign.study.importances`.

    Raises:
        ValueError: the counts do not add up.
    """

    chip: str
    points: int
    feasible: int
    kept: int
    refused: dict[FailureKind, int] = field(default_factory=dict)
    importances: dict[str, dict[str, float]] = field(default_factory=dict)

    __pydantic_config__ = ConfigDict(extra="forbid")

    def __post_init__(self) -> None:
        if self.feasible + sum(self.refused.values()) != self.points or not 0 <= self.kept <= self.feasible:
            raise ValueError(f"the counts of an enumeration on {self.chip} do not add up")
