"""One finished trial of a search: what was proposed, and what came of it."""

from dataclasses import dataclass, field
from typing import Literal, get_args

from pydantic import ConfigDict

from moe_codesign.domain.failure import Failure
from moe_codesign.domain.pair import Pair

SampledMode = Literal["joint", "nested"]
"""``joint`` proposes shape and tiles together; ``nested`` proposes the shape alone and takes its best tiles."""
Mode = Literal[SampledMode, "exact", "polish"]
"""How a trial came about: ``exact`` takes every shape of a space in turn, with its best tiles; ``polish`` those
that lie beside a sampled frontier."""
MODES: tuple[Mode, ...] = get_args(Mode)
Parameter = int | bool | str | float
"""A value that the sampler proposed."""


@dataclass(frozen=True)
class Answered:
    """A trial that was evaluated: one pair for each workload of its chip.

    Raises:
        ValueError: there is no pair, or two pairs are of the same workload.
    """

    pairs: tuple[Pair, ...]

    __pydantic_config__ = ConfigDict(extra="forbid")

    def __post_init__(self) -> None:
        if not self.pairs:
            raise ValueError("an answered trial has at least one pair")
        names = [pair.workload.name for pair in self.pairs]
        if len(set(names)) < len(names):
            raise ValueError(f"an answered trial has one pair for each workload, and these are {', '.join(names)}")


@dataclass(frozen=True)
class Refused:
    """A trial that breaks a constraint or could not be evaluated, and why."""

    failure: Failure

    __pydantic_config__ = ConfigDict(extra="forbid")


Outcome = Answered | Refused
"""What came of a trial. How a call or a compile ended is a CallResult or a CompileResult."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One finished trial.

    Args:
        chip: name of the chip that it was evaluated on.
        mode: which of a chip's searches proposed it.
        number: Optuna's number within its chip and mode.
        params: what the sampler proposed, by name.
        outcome: its pairs, or why it has no pairs.

    Raises:
        ValueError: unknown mode, a negative number, or a pair of another chip.
    """

    chip: str
    mode: Mode
    number: int
    params: dict[str, Parameter] = field(default_factory=dict)
    outcome: Outcome

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"mode {self.mode!r} is unknown")
        if self.number < 0:
            raise ValueError(f"trial number {self.number} is below 0")
        if any(pair.chip != self.chip for pair in self.pairs):
            raise ValueError(f"a trial on {self.chip} has a pair of another chip")

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """Its pairs; empty where it was refused."""
        return self.outcome.pairs if isinstance(self.outcome, Answered) else ()

    @property
    def failure(self) -> Failure | None:
        """Why it was refused, or None."""
        return self.outcome.failure if isinstance(self.outcome, Refused) else None
