"""Errors that a user can fix. Everything else is a bug and may show its traceback."""

_LONGEST_LINE = 2000
_LONGEST_VALUE = 200


def printable(text: str, longest: int | None = None) -> str:
    """A text that a terminal only prints: what would move its cursor, set its title or turn the line is written out.

    Args:
        longest: cut in the middle what has more characters.
    """
    if longest is not None and len(text) > longest:
        text = f"{text[: longest // 2]} .. {text[-longest // 2 :]}"
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def quoted(value: object) -> str:
    """The value as Python writes it, cut where it is long. An integer may have more digits than Python writes."""
    try:
        return printable(repr(value), _LONGEST_VALUE)
    except Exception:
        return f"a {type(value).__name__} that cannot be printed"


class UserError(Exception):
    """Wrong use, in one line: what was wrong, the value, and how to fix it.

    Args:
        what: what was wrong.
        value: the value that was given, if naming it helps.
        fix: what to do instead.
    """

    def __init__(self, what: str, *, value: object = None, fix: str = "") -> None:
        parts = [what if value is None else f"{what}: got {quoted(value)}"]
        if fix:
            parts.append(fix)
        super().__init__(printable("; ".join(parts), _LONGEST_LINE))


class MachineError(Exception):
    """What the machine does not do now: start a process, write to a full disk. One line; another try may succeed."""

    def __init__(self, what: str) -> None:
        super().__init__(printable(what, _LONGEST_LINE))


def first_line(error: BaseException) -> str:
    """The first line of what an exception says, at most 300 characters; of an exception without text, its ``repr``.

    Compilers and databases raise pages; a stored reason and an error message have one line.
    """
    try:
        text = str(error).strip() or repr(error)
    except Exception:  # an exception of a user's own, whose text is broken too
        text = "it has no readable text"
    return printable(text.splitlines()[0][:300])
