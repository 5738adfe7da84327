"""How space files name chips, and how studies keep them."""

from typing import Annotated, Any

from pydantic import AfterValidator, PlainSerializer, PlainValidator

from moe_codesign.chips import Chip, chip_named, chip_names, load_chip, parse_chip
from moe_codesign.errors import UserError
from moe_codesign.tables import did_you_mean


def chip_of(value: object) -> Chip:
    """A chip by its name, by its file, or as a stored study holds it.

    Raises:
        ValueError: there is no such chip, or its file is wrong.
    """
    if isinstance(value, Chip):
        return value
    try:
        if isinstance(value, dict):
            return parse_chip(value, "chip")
        if isinstance(value, str) and (value.endswith(".toml") or value in chip_names() or chip_named(value)):
            return load_chip(value)
    except UserError as error:
        raise ValueError(str(error)) from None
    raise ValueError(f"unknown chip{did_you_mean(str(value), chip_names())}, or give a path to a .toml")


def _stored_chip(chip: Chip) -> str | dict[str, Any]:
    """How a study keeps a chip: one of the catalogue by name, another one whole, as its file may change or go.

    A price or a power of the space's own is kept with the space.
    """
    chip = chip.as_filed()
    if chip.is_host or (chip.name in chip_names() and chip == load_chip(chip.name)):
        return chip.name
    return chip.model_dump(mode="json", exclude_unset=True)


def _chip_name(value: str) -> str:
    """The name that a chip goes by, where a space file names its file or spells it another way."""
    return chip_of(value).name if value.endswith(".toml") else chip_named(value) or value


AnyChip = Annotated[Chip, PlainValidator(chip_of, json_schema_input_type=str), PlainSerializer(_stored_chip)]
"""A chip by its name, its file or its whole table."""
ChipName = Annotated[str, AfterValidator(_chip_name)]
"""The name that a chip goes by; a file may stand for it."""
