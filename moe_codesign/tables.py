"""Strict tables: what TOML and JSON files hold, checked where it is read, with errors that fit on one line."""

import difflib
import re
import types
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Tag, ValidationError

from moe_codesign.errors import UserError, quoted

_MOST = 3
"""Errors of one file that are shown; those after them often follow from them."""
_LONGEST_VALUE = 80
_LONGEST_NAME = 150


class Table(BaseModel):
    """A table of a file. It cannot change, and a key that it does not have is an error: most often a misspelling."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def check_name(name: str) -> str:
    """A name that results are kept under, in a database and as a folder.

    Raises:
        ValueError: it is empty or too long, would lead to another folder, or does not print as it is.
    """
    if not check_label(name).strip(". ") or any(char in name for char in "/\\"):
        raise ValueError("it is a folder's name too; give one without / and \\, and not of dots alone")
    return name


def check_label(text: str) -> str:
    """A short text that tables and pages show.

    Raises:
        ValueError: it is empty or too long, or has characters that would move a terminal's cursor.
    """
    if not 0 < len(text) <= _LONGEST_NAME or not text.isprintable():
        raise ValueError(f"give 1 to {_LONGEST_NAME} printable characters")
    return text


Name = Annotated[str, AfterValidator(check_name)]
Label = Annotated[str, AfterValidator(check_label)]


_T = TypeVar("_T", bound=BaseModel)


def read_table(model: type[_T], data: Any, source: str) -> _T:
    """Validate what was read from a file.

    Args:
        source: the file's name, with which the message begins.

    Raises:
        UserError: the data is no such table; names the key, the value and the fix.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise UserError(f"{source}: {explain(error, model)}") from None


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Say in one line what is wrong with a table of type ``model``: key, value and fix of the first three errors."""
    return "; ".join(dict.fromkeys(_explain(one, model) for one in error.errors()[:_MOST]))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """End a message about an unknown word: with the known word that is nearest, or else with all of them."""
    known = list(known)
    near = nearest(word, known, likeness=0.5)
    return f"; did you mean {near}?" if near else f"; use one of {', '.join(known)}"


def nearest(word: str, known: Iterable[str], *, likeness: float) -> str | None:
    """The known word that is most like this one, if it is as like as ``likeness`` (difflib's ratio, 0 to 1)."""
    return next(iter(difflib.get_close_matches(word[:_LONGEST_NAME], list(known), n=1, cutoff=likeness)), None)


def _explain(error: Any, model: type[BaseModel]) -> str:
    parts, table = _follow(model, error["loc"])
    key, value = ".".join(parts), error["input"]
    if error["type"] == "extra_forbidden":
        return f"{key} is unknown{did_you_mean(parts[-1], table.model_fields)}"
    if error["type"] == "missing":
        return f"{key} is missing; add it"
    if error["type"] == "list_type" and isinstance(value, dict):
        return f"{key} is one table; write [[{key}]]"
    message: str = error["msg"].removeprefix("Value error, ")
    if not key:
        return message
    shown = quoted(value)
    # A table's own check names the values that it is about.
    return (
        f"{key}: {message}" if isinstance(value, dict) or len(shown) > _LONGEST_VALUE else f"{key} = {shown}: {message}"
    )


def _follow(model: type[BaseModel], location: Sequence[int | str]) -> tuple[list[str], type[BaseModel]]:
    """Walk from a model along an error's location.

    Returns the key as it is written in the file, without the names of a union's members that pydantic puts in between,
    and the innermost table that the walk came through.
    """
    parts: list[str] = []
    table, rest = model, list(location)
    kind: Any = model
    while rest:
        origin, inside = get_origin(kind), get_args(kind)
        if origin is Annotated:
            kind = inside[0]
        elif origin in (Union, types.UnionType):
            members = [one for one in inside if one is not type(None)]
            # A type that may be None alone is no choice, and pydantic gives it no name.
            kind = members[0] if len(members) == 1 else _member(members, rest.pop(0))
        elif isinstance(kind, type) and issubclass(kind, BaseModel):
            table, part = kind, str(rest.pop(0))
            parts.append(part)
            field = kind.model_fields.get(part)
            kind = field.annotation if field is not None else None
        else:
            parts.append(str(rest.pop(0)))
            kind = inside[-1] if origin is dict else inside[0] if origin in (list, tuple) else None
    return parts, table


def _member(members: Sequence[Any], name: int | str) -> Any:
    """The member of a union that pydantic calls so: by its tag, or by its class, perhaps with a check around it."""
    for member in members:
        base = get_args(member)[0] if get_origin(member) is Annotated else member
        tags = [one.tag for one in getattr(member, "__metadata__", ()) if isinstance(one, Tag)]
        called = getattr(base, "__name__", "")
        if name in (*tags, called) or re.fullmatch(rf"function-\w+\[.*, {called}\]", str(name)):
            return base
    return None
