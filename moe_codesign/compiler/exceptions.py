"""What an exception of a compiler means: a refusal for good, or the machine's doing."""

import errno
import os
import re
from typing import Literal

from moe_codesign.compiler.artifact import Refused, Unanswered
from moe_codesign.compiler.llo import refusal
from moe_codesign.errors import first_line

_OF_THE_MACHINE = (errno.ENOMEM, errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EAGAIN)
_KILLED = re.compile(r"ptxas` failed with error code -\d+|died with <Signals\.SIG(KILL|TERM)")
"""How Triton and subprocess say that a compiler's tool was killed by another process."""


def by_chance(error: BaseException) -> bool:
    """Whether the machine was short of memory, disk or processes, or somebody killed one: another try may succeed."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _OF_THE_MACHINE):
        return True
    return bool(_KILLED.search(str(error))) or any(os.strerror(number) in str(error) for number in _OF_THE_MACHINE[:3])


def named_line(error: BaseException) -> str:
    """The error's type, and the first line of what it says."""
    return f"{type(error).__name__}: {first_line(error)}"


def first_and_last_line(error: BaseException) -> str:
    """In one line: Triton begins with the place, quotes the source, and ends with what is wrong there."""
    lines = [line.strip() for line in (str(error).strip() or repr(error)).splitlines() if line.strip(" ^\t")]
    text = lines[0] if len(lines) == 1 else f"{lines[0]} {lines[-1]}"
    return f"{type(error).__name__}: {text[:300]}"


def of_gpu_error(
    error: BaseException, text: str, *, compiler: str, compile_s: float, sources: dict[str, str] | None = None
) -> Refused | Unanswered:
    """What became of a compile that raised this; ``text`` is the error in one line."""
    return _outcome(error, "failed", text, compiler, compile_s, sources)


def of_tpu_error(
    error: BaseException, *, compiler: str, compile_s: float, sources: dict[str, str] | None = None
) -> Refused | Unanswered:
    """The same for libtpu, which names the limit of memory that was broken."""
    if limit := refusal(str(error)):
        return _outcome(error, "refused", limit, compiler, compile_s, sources)
    return _outcome(error, "failed", named_line(error), compiler, compile_s, sources)


def _outcome(
    error: BaseException,
    kind: Literal["refused", "failed"],
    text: str,
    compiler: str,
    compile_s: float,
    sources: dict[str, str] | None,
) -> Refused | Unanswered:
    if by_chance(error):
        return Unanswered(kind="crashed", reason=text)
    return Refused(kind=kind, reason=text, compiler=compiler, compile_s=compile_s, sources=sources or {})
