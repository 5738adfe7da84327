"""Fields of a ``config.json`` as whole numbers, each with the key that it came from.

Nothing is guessed: a field that is there and is not one whole number is an error that names it, and so are two fields
of one meaning that disagree.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from moe_codesign.errors import UserError


class NoExpertsError(UserError):
    """A config that describes no mixture of experts."""


class Whole(NamedTuple):
    """A whole number and the key that it was read from."""

    value: int
    key: str


@dataclass(frozen=True)
class Fields:
    """One table of a config.

    Args:
        table: the table.
        source: the file, as messages name it.
        path: keys that lead to the table from the top of the file, with dots; empty at the top.
        taken_in: fields that were taken in from a table inside this one, by the name of that table.
    """

    table: Mapping[str, Any]
    source: str
    path: str = ""
    taken_in: Mapping[str, str] = field(default_factory=dict)

    def key(self, name: str) -> str:
        """The field's key from the top of the file: ``text_config.num_experts``."""
        return ".".join(filter(None, (self.path, self.taken_in.get(name), name)))

    def with_inner(self, name: str) -> "Fields":
        """This table and the fields of one inside it, which come first where both have one; the type is the outer's."""
        inner = {key: value for key, value in self.table[name].items() if key != "model_type"}
        return Fields({**self.table, **inner}, self.source, self.path, dict.fromkeys(inner, name))

    def has(self, name: str) -> bool:
        """Whether the field is there and is not null."""
        return self.table.get(name) is not None

    def inner(self, name: str) -> "Fields | None":
        """The table in a field, or None where there is none."""
        value = self.table.get(name)
        return Fields(value, self.source, self.key(name)) if isinstance(value, dict) else None

    def error(self, name: str, fix: str) -> UserError:
        """An error that names a field and its value."""
        return UserError(f"{self.source}: {self.key(name)}", value=self.table.get(name), fix=fix)

    def whole(self, name: str, *, least: int = 0) -> Whole | None:
        """The whole number in a field, or None where it is absent or null.

        A list that holds a number for every layer is read where all of them are equal.

        Raises:
            UserError: the field holds something else.
        """
        value = self.table.get(name)
        if value is None:
            return None
        if isinstance(value, list):
            if not value or any(not _is_whole(one) for one in value):
                raise self.error(name, "give one whole number")
            if len(set(value)) > 1:
                raise self.error(name, "its numbers differ, and a shape holds one; give a config with one of them")
            value = value[0]
        if not _is_whole(value) or value < least:
            raise self.error(name, f"give one whole number of at least {least}")
        return Whole(value, self.key(name))

    def flag(self, name: str) -> bool | None:
        """True or false, or None where the field is absent or null.

        Raises:
            UserError: the field holds something else.
        """
        value = self.table.get(name)
        if value is not None and not isinstance(value, bool):
            raise self.error(name, "give true or false")
        return value

    def one_of(self, names: Iterable[str], *, least: int = 0) -> Whole | None:
        """The number that fields of one meaning agree on, from the first of them; None where all are absent or null.

        Raises:
            UserError: a field is no whole number, or two disagree.
        """
        found = [one for name in names if (one := self.whole(name, least=least)) is not None]
        for other in found[1:]:
            if other.value != found[0].value:
                raise disagreement(self.source, found[0], other)
        return found[0] if found else None

    def need(self, names: Iterable[str], *, least: int = 1) -> Whole:
        """As :meth:`one_of`, of a number that a shape cannot do without.

        Raises:
            UserError: as there, or all are absent, or null.
        """
        names = tuple(names)
        if (found := self.one_of(names, least=least)) is not None:
            return found
        for name in names:
            if name in self.table:
                raise UserError(f"{self.source}: {self.key(name)} is null", fix="give one whole number")
        where = f"{self.source}: {self.path}" if self.path else self.source
        raise UserError(f"{where} lacks a field", fix="it needs one of " + ", ".join(names))


def disagreement(source: str, one: Whole, other: Whole) -> UserError:
    """The error for two fields of one meaning that hold different numbers."""
    return UserError(
        f"{source}: {one.key} is {one.value} and {other.key} is {other.value}",
        fix="give one of them, or the same number",
    )


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
