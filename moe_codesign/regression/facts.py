"""What a regression test knows of a compiled kernel: where it stands, and its facts."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field

from moe_codesign.storage.regressions import FactRow

_AT = " at "
_ROUTING = re.compile(r"(.*?), ((?:balanced|uniform|zipf|power_law|histogram)\b.*) routing")


class Place(NamedTuple):
    """One compiled kernel of a suite.

    Args:
        kernel: its name in the suite; of this project's kernels with GEMM and data type.
        chip: what it is compiled for.
        tile: its tile's label; empty where a function has no tiles.
    """

    kernel: str
    chip: str
    tile: str = ""

    def __str__(self) -> str:
        return " | ".join(part for part in self if part)


@dataclass(frozen=True)
class Fact:
    """The name of a number.

    Args:
        name: what was counted or modelled.
        problem: the layer that a modelled time is of, with its tokens and split; other facts belong to no problem.
        routing: the routing of the problem, whose time depends on it; None where a file does not name it.
    """

    name: str
    problem: str | None = None
    routing: str | None = None

    @property
    def asked(self) -> str:
        """The problem and its routing: ``Qwen3-30B-A3B 64 tokens, uniform routing``; empty without a problem."""
        return (self.problem or "") + (f", {self.routing} routing" if self.routing is not None else "")

    def __str__(self) -> str:
        return self.name if self.problem is None else f"{self.name}{_AT}{self.asked}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what ``str`` writes: what a file calls a fact."""
        name, at, problem = text.partition(_AT)
        if found := _ROUTING.fullmatch(problem):
            return cls(name, *found.groups())
        return cls(name, problem if at else None)


@dataclass(frozen=True)
class Facts:
    """What is known of one place. Nothing in it depends on the machine: no path, time or host.

    Args:
        status: ``ok``; ``unlaunchable`` (compiled, but over a limit of the chip); or why there is no binary:
            ``refused``, ``failed``, ``missing``, ``timeout``, ``crashed``.
        numbers: what was read from the binary, and the modelled times.
        reason: what the compiler said where there is no binary.
        tile: the tile that a default stands for at present.
    """

    status: str
    numbers: Mapping[Fact, float] = field(default_factory=dict)
    reason: str | None = None
    tile: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the kernel compiles and can be launched."""
        return self.status == "ok"

    def to_json(self) -> FactRow:
        """One flat object, as files, databases and pytest's reports hold it."""
        texts = {"status": self.status, "reason": self.reason, "tile": self.tile}
        numbers = {str(fact): number for fact, number in self.numbers.items()}
        return {**{key: text for key, text in texts.items() if text is not None}, **numbers}

    @classmethod
    def from_json(cls, data: FactRow) -> Self:
        """Read what :meth:`to_json` writes.

        Raises:
            pydantic.ValidationError: it holds something else.
        """
        row = _Row.model_validate(data)
        numbers = {Fact.parse(name): number for name, number in (row.__pydantic_extra__ or {}).items()}
        return cls(row.status, numbers, row.reason, row.tile)


class _Row(BaseModel):
    """The flat object: three texts, all else numbers."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, int | float] = Field(init=False)

    status: str
    reason: str | None = None
    tile: str | None = None
