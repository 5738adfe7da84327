"""The chip catalogue: one TOML file each, beside this module; ``cpu`` is this host, detected."""

from moe_codesign.chips.catalogue import chip_names, load_chip
from moe_codesign.chips.schema import Chip

__all__ = ["Chip", "chip_names", "load_chip"]
