"""Checks on the sizes of a model's parts, so that nothing meaningless can be built."""

from moe_codesign.domain.shape import LARGEST_SIZE
from moe_codesign.errors import UserError


def check_sizes(part: object, *names: str, least: int = 1) -> None:
    """Raise an error unless each of these fields is a whole number from ``least`` to the largest size of a layer.

    Args:
        part: a dataclass.
        names: of its fields.
        least: the smallest that makes sense.

    Raises:
        UserError: it names the part and the field.
    """
    for name in names:
        value = getattr(part, name)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= LARGEST_SIZE:
            raise UserError(
                f"{name} of {type(part).__name__}",
                value=value,
                fix=f"give a whole number from {least} to {LARGEST_SIZE:,}",
            )


def check_flags(part: object, *names: str) -> None:
    """Raise an error unless each of these fields is true or false.

    Raises:
        UserError: it names the part and the field.
    """
    for name in names:
        if not isinstance(getattr(part, name), bool):
            raise UserError(f"{name} of {type(part).__name__}", value=getattr(part, name), fix="give true or false")
