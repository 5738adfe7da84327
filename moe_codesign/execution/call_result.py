"""What became of a call in another process: a tagged union; the class says which."""

from dataclasses import dataclass
from typing import Generic, Self, TypeVar

from moe_codesign.errors import first_line

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True)
class Done(Generic[T_co]):
    """The function returned this value."""

    value: T_co


@dataclass(frozen=True)
class TimedOut:
    """The function ran into its time limit, and its process was killed."""

    limit_s: float

    def __str__(self) -> str:
        return f"no result within {self.limit_s:g} s"


@dataclass(frozen=True)
class Died:
    """The process ended before the function returned. ``exit_code`` is negative for a signal, as in ``subprocess``."""

    exit_code: int

    def __str__(self) -> str:
        return f"the process died (exit code {self.exit_code})"


@dataclass(frozen=True)
class Raised:
    """The function raised. ``kind`` is the exception's class, ``text`` the first line of what it says."""

    kind: str
    text: str

    @classmethod
    def of(cls, error: BaseException) -> Self:
        return cls(type(error).__name__, first_line(error))

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


CallResult = Done[T_co] | TimedOut | Died | Raised
"""How a call ended."""
