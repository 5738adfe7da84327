"""What came of timing the neighbours of a sampled frontier."""

from dataclasses import dataclass

from pydantic import ConfigDict


@dataclass(frozen=True, kw_only=True)
class Polish:
    """Counts of the shapes beside a frontier that were judged, and timed where they met the constraints.

    Args:
        chip: name of the chip.
        trials: sampled trials whose frontier it began with.
        shapes: neighbours that were judged.
        rounds: how often the neighbours of the frontier were taken, one after another.
        settled: it ended because no neighbour was left that could move the frontier, not at its limit.
        kept: shapes that are stored as trials: those that came to lie on the frontier, then or in an earlier polish.

    Raises:
        ValueError: a count is below 0.
    """

    chip: str
    trials: int
    shapes: int
    rounds: int
    settled: bool
    kept: int

    __pydantic_config__ = ConfigDict(extra="forbid")

    def __post_init__(self) -> None:
        if min(self.trials, self.shapes, self.rounds, self.kept) < 0:
            raise ValueError(f"a polish on {self.chip} has a count below 0")

    def __str__(self) -> str:
        end = "until none was left that could move it" if self.settled else "up to the limit of budget.polish"
        return f"{self.shapes:,} neighbours of the frontier were judged {end}: {self.kept:,} more lie on it"
