"""Errors that a user can fix. Everything else is a bug and may show its traceback."""


class UserError(Exception):
    """Wrong use, in one line: what was wrong, the value, and how to fix it.

    Args:
        what: what was wrong.
        value: the value that was given, if naming it helps.
        fix: what to do instead.
    """

    def __init__(self, what: str, *, value: object = None, fix: str = "") -> None:
        parts = [what if value is None else f"{what}: got {value!r}"]
        if fix:
            parts.append(fix)
        super().__init__("; ".join(parts))


class MachineError(Exception):
    """What the machine does not do now: start a process, write to a full disk. One line; another try may succeed."""


def first_line(error: BaseException) -> str:
    """The first line of what an exception says, at most 300 characters; of an exception without text, its ``repr``.

    Compilers and databases raise pages; a stored reason and an error message have one line.
    """
    try:
        text = str(error).strip() or repr(error)
    except Exception:  # an exception of a user's own, whose text is broken too
        text = "it has no readable text"
    return text.splitlines()[0][:300]
