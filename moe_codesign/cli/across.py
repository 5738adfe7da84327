"""What the commands share that price a whole space on several chips: options, progress, and how they answer."""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from moe_codesign.cli.options import JOBS, JSON, OBJECTIVE, RECOMPILE, SHARES, console, emit_typed, progress

_Command = TypeVar("_Command", bound=Callable[..., Any])
_Result = TypeVar("_Result", covariant=True)


class Ask(Protocol[_Result]):
    """A function of the API, with everything given but its progress callbacks."""

    def __call__(
        self, *, compiling: Callable[[int, int], None], running: Callable[[str, int, int], None]
    ) -> _Result: ...


def across_options(command: _Command) -> _Command:
    """The options ``--objective --shares --jobs --recompile --json``."""
    for option in (JSON, RECOMPILE, JOBS, SHARES, OBJECTIVE):
        command = option(command)
    return command


def answer_across(ask: Ask[Any], show: Callable[[Any, Any], None], *, as_json: bool) -> None:
    """Ask with a progress bar for each chip, and print the answer.

    Args:
        ask: the question.
        show: prints an answer on Rich's console.
        as_json: print JSON instead.
    """
    with progress() as bar:
        bars: dict[str, Callable[[int, int], None]] = {}

        def running(chip: str, done: int, total: int) -> None:
            bars.setdefault(chip, bar(chip))(done, total)

        result = ask(compiling=bar("compile"), running=running)
    if as_json:
        emit_typed(result)
    else:
        show(console(), result)
