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
