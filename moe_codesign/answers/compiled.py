"""What a compiler made of a kernel or function, as values that reports print."""

from dataclasses import asdict, dataclass
from typing import Any

from moe_codesign.compiler import Compiled, CompileResult, Request
from moe_codesign.compiler.artifact import GpuFacts, JaxFacts, TpuFacts
from moe_codesign.compiler.function import FunctionRequest


@dataclass(frozen=True)
class CompiledKernel:
    """One tile of a kernel on a chip: what was asked, what came of it, and why the chip cannot run it if so.

    ``note`` says by which compiler the facts are, where another version of it is installed here.
    """

    request: Request
    outcome: CompileResult
    refused: str | None
    note: str = ""

    @property
    def facts(self) -> GpuFacts | TpuFacts | None:
        """What was read from the binary, if there is one."""
        facts = self.outcome.facts if isinstance(self.outcome, Compiled) else None
        return facts if isinstance(facts, GpuFacts | TpuFacts) else None

    def to_dict(self) -> dict[str, Any]:
        """As ``compile --json`` prints it: ``artifact`` has ``gpu`` or ``tpu`` where ``status`` is ok, else a
        ``reason``."""
        asked = self.request
        about = {name: getattr(asked, name) for name in ("kernel", "op", "dtype", "target")}
        return {
            "artifact": {**about, "tile": asked.tile.as_dict(), **_plain(self.outcome, asked.compiler)},
            "refused": self.refused,
            "note": self.note,
        }


@dataclass(frozen=True)
class CompiledFunction:
    """A user's function on a chip: what was asked, and what came of it."""

    request: FunctionRequest
    outcome: CompileResult

    @property
    def refused(self) -> str | None:
        """Why there is no program, if there is no program."""
        return None if isinstance(self.outcome, Compiled) else self.outcome.reason

    @property
    def facts(self) -> JaxFacts:
        """Its kernels; empty where it was refused."""
        facts = self.outcome.facts if isinstance(self.outcome, Compiled) else None
        return facts if isinstance(facts, JaxFacts) else JaxFacts(kernels=())

    @property
    def note(self) -> str:
        """What is missing from the facts, if anything."""
        return self.outcome.note if isinstance(self.outcome, Compiled) else ""

    def to_dict(self) -> dict[str, Any]:
        """As ``compile --json`` prints it."""
        asked = self.request
        return {"function": asked.function, "target": asked.target, **_plain(self.outcome, asked.compiler)}


def _plain(outcome: CompileResult, compiler: str) -> dict[str, Any]:
    found: dict[str, Any] = {"compiler": compiler, "status": outcome.status}
    if not isinstance(outcome, Compiled):
        return {**found, "reason": outcome.reason}
    found |= {"compiler": outcome.compiler, "compile_s": outcome.compile_s, "note": outcome.note}
    match outcome.facts:
        case GpuFacts() as facts:
            return {**found, "gpu": asdict(facts)}
        case TpuFacts() as facts:
            return {**found, "tpu": asdict(facts)}
        case JaxFacts(kernels=kernels):
            return {**found, "kernels": [asdict(kernel) for kernel in kernels]}
