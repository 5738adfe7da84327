"""Errors a user can mend. Everything else is a bug and may show its traceback."""


class UserError(Exception):
    """Wrong use: what was wrong, the value, and how to mend it, in one line."""

    def __init__(self, what: str, *, value: object = None, mend: str = "") -> None:
        parts = [what if value is None else f"{what}: got {value!r}"]
        if mend:
            parts.append(mend)
        super().__init__("; ".join(parts))
